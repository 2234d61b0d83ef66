"""Names of files are bytes, and Python's texts for them are UTF-8 whatever the locale says."""

from __future__ import annotations

import os
import sys


def use_utf8() -> None:
    """Begin this process anew with UTF-8 for names and arguments, where a locale such as C has another encoding.

    There a name with an umlaut is neither printed nor opened, and other machines would spell it otherwise. What is
    printed keeps the encoding of the terminal. For the command line of a process of its own, before anything is read.
    """
    if sys.getfilesystemencoding().lower().replace("-", "") == "utf8" or os.environ.get("PYTHONUTF8") == "1":
        return
    stream = sys.stdout or sys.stderr
    environment = {**os.environ, "PYTHONUTF8": "1"}
    environment.setdefault("PYTHONIOENCODING", getattr(stream, "encoding", None) or "utf-8")
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
