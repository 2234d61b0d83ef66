"""What `ray job submit --working-dir .` sends to a cluster: our code once, and it imports there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

packaging = pytest.importorskip("ray._private.runtime_env.packaging")

ROOT = Path(__file__).resolve().parents[2]


def test_it_holds_the_code_once_and_runs(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    checkout, package, node = tmp_path / "checkout", tmp_path / "package.zip", tmp_path / "node"
    for name in listed.stdout.splitlines():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name, follow_symlinks=False)
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "large.bin").write_bytes(b"x")
    packaging.create_package(str(checkout), package, include_gitignore=True)
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist())
        archive.extractall(node)
    assert {"trackmill/__init__.py", "jobs/train.py", "jobs/recipes/masa_lite0.toml", "models/registry.py"} <= names
    assert not [name for name in names if name.startswith(("infra/typing", ".venv"))]
    assert len([name for name in names if name.endswith("models/registry.py")]) == 1

    code = "import trackmill.pipeline.mining.miner as m; print(m.__file__)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=node, capture_output=True, text=True, timeout=300)
    assert ran.stdout.strip() == str(node / "pipeline/mining/miner.py"), ran.stderr
