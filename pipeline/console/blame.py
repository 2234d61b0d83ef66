"""Whose code an error came from: ours, a library's, or somebody's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import trackmill

_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')


def place_outside(text: str) -> str:
    """File and line of the last call that is neither ours nor in an installed package; "" if there is none.

    Args:
        text: a traceback; also one that another process wrote into an error's message.
    """
    ours = Path(trackmill.__file__).resolve().parent.parent
    for name, line in reversed(_FRAME.findall(text)):
        path = Path(name)
        installed = "site-packages" in path.parts or path.is_relative_to(sys.base_prefix)
        if path.is_file() and not installed and not path.resolve().is_relative_to(ours):
            return f"{path.name}:{line}"
    return ""
