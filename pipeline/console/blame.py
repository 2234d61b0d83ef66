"""Whose code an error came from: ours, a library's, or somebody's own."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import trackmill

_PYTHON = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')


def place_outside(text: str) -> str:
    """File and line of the last call that is neither ours nor in an installed package; "" if there is none.

    Args:
        text: a traceback; also one that another process wrote into an error's message.
    """
    ours = Path(trackmill.__file__).resolve().parent.parent
    for name, line in reversed(_FRAME.findall(text)):
        path = Path(name)
        if path.is_file() and not is_installed(path) and not path.resolve().is_relative_to(ours):
            return f"{path.name}:{line}"
    return ""


def is_installed(file: Path) -> bool:
    """Whether a file is part of Python or of an installed package."""
    return bool({"site-packages", "dist-packages"} & {*file.parts}) or any(map(file.is_relative_to, _PYTHON))
