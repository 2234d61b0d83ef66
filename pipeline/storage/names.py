"""Names of files on this machine that are not UTF-8: spelt so that they can be shown, stored, and found again."""

from __future__ import annotations

import os
import re

_SPELT_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")


def spelt(name: str) -> str:
    r"""A name in which each byte that is no UTF-8 is written as `\xe9`; any other name as it is.

    Args:
        name: as Python has it from the operating system or from a tar, where such bytes are lone surrogates.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def found(path: str) -> str:
    r"""The path that `spelt` made this one of, if it is there; a name may really hold `\xe9`."""
    if "\\x" not in path or os.path.lexists(path):
        return path
    raw = os.fsdecode(_SPELT_BYTE.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(path)))
    return raw if os.path.lexists(raw) else path
