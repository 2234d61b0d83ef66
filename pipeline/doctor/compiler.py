"""What DeepSpeed compiles at its first use, and whether it can be compiled here."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trackmill.pipeline.doctor.asking import ask_program
from trackmill.pipeline.doctor.finding import Finding, Level
from trackmill.schemas.install import install, install_package

_OPERATOR = "deepspeed_shm_comm"
"""The one that ranks on CPUs use; those for GPUs are PyTorch's own here."""


def check_compiler(has_gpu: bool = False) -> list[Finding]:
    """DeepSpeed, its compiler, and whether its operator is built already.

    Args:
        has_gpu: ranks will run on GPUs, and nothing is compiled for them.
    """
    try:
        installed = f"DeepSpeed {version('deepspeed')}"
    except PackageNotFoundError:
        said = 'DeepSpeed is not installed; the recipes run with engine.name = "torch", and ZeRO wants the extra'
        return [Finding(about="deepspeed", level=Level.NOTE, said=f"{said}: {install('deepspeed')}")]
    folder = extensions_folder()
    built = sorted(folder.rglob(f"{_OPERATOR}*.so")) if folder.is_dir() else []
    if built:
        return [Finding(about="deepspeed", said=f"{installed}; its operator is built in {folder}")]
    lacks = missing_tools()
    if not lacks:
        said = f"{installed}; its operator for CPUs is compiled at the first use (1 to 3 minutes), into {folder}"
        return [Finding(about="deepspeed", said=said)]
    said = f"{installed}, but {' and '.join(lacks)} cannot be found, and its operator for CPUs is not built"
    mend = (
        f"apt install g++ python3-dev; {install_package('ninja')}; or take the image for training, which has it built"
    )
    return [Finding(about="deepspeed", level=Level.NOTE if has_gpu else Level.WARNING, said=said, mend=mend)]


def extensions_folder() -> Path:
    """Where PyTorch keeps what was compiled."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(given) if given else Path.home() / ".cache" / "torch_extensions"


def missing_tools() -> list[str]:
    """Compiler, ninja, and Python's headers: those that are not here."""
    compiler = os.environ.get("CXX", "g++")
    lacks = [] if ask_program(compiler, "--version") else [compiler]
    if not (shutil.which("ninja") or _ninja_package()):
        lacks.append("ninja")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        lacks.append("Python.h")
    return lacks


def _ninja_package() -> bool:
    try:
        version("ninja")
    except PackageNotFoundError:
        return False
    return True
