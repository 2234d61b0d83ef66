"""Questions that another process answers: one that crashes or hangs in a driver or library takes nobody along."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson

_MARK = b"TRACKMILL-ANSWER "
_HEAD = "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
# Libraries that were loaded may hang or crash at the end of an interpreter, so it has none.
_TAIL = f"""
import os
sys.stdout.write('\\n{_MARK.decode()}' + json.dumps(answer) + '\\n')
sys.stdout.flush()
os._exit(0)
"""


class NoAnswer(Exception):
    """The process ended, or was ended, without an answer; the text says how."""


def ask_python(code: str, timeout_s: float) -> dict[str, Any]:
    """Run code of ours in a new interpreter, and return the dictionary that it leaves in `answer`.

    Raises:
        NoAnswer: it raised, crashed, or took longer than `timeout_s`.
    """
    words = [sys.executable, "-c", _HEAD + code + _TAIL, orjson.dumps(sys.path).decode()]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"no answer in {timeout_s:.0f} s") from None
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(_MARK):
            return dict(orjson.loads(line.removeprefix(_MARK)))
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode < 0:
        raise NoAnswer(f"the process was ended by signal {-done.returncode}")
    raise NoAnswer(said[-1] if said else f"the process ended with {done.returncode}")


def ask_program(*words: str, timeout_s: float = 30.0) -> str | None:
    """What a program prints; None where it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
