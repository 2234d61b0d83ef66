r"""Names with unprintable characters: escaped so that they can be printed, stored, and mapped back to the file.

A name on a disk is any bytes without `/` and NUL, one in a tar or a store any at all: bytes that are no UTF-8, line
breaks that forge a line of a log, escape sequences that rewrite a terminal, marks that turn the order of letters round.
Each byte of such a character is escaped as `\x1b`. The program uses the escaped name everywhere, and unescapes it only
where it opens a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def escaped(name: str) -> str:
    r"""A name in which each byte that cannot be shown is written as `\xe9`; any other name as it is.

    What can be shown is what `str.isprintable` says, so that an older Python may escape a character of a newer
    Unicode version; mining recognises the file by either form.

    Args:
        name: as Python has it from the operating system or from a tar, where bytes that are no UTF-8 are lone
            surrogates.
    """
    return printable(name)


def printable(text: str, keep: str = "") -> str:
    """A text as a terminal may get it, in which characters of `keep` stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def existing_path(path: str) -> str:
    r"""The path on this machine whose escaped form (`escaped`) this is, if it exists; a name may really hold `\xe9`.

    Each part of the path is checked, so that the path of a file that does not exist yet has the right folder.
    """
    if "\\x" not in path or os.path.lexists(path):
        return path
    return _existing_parts(path, os.path.lexists)


def existing_in_store(path: str, exists: Callable[[str], bool]) -> str:
    """The same for a store, whose names have no folders: the name as it is, or with all of it unescaped."""
    raw = _unescaped(path) if "\\x" in path else path
    return raw if raw != path and escaped(raw) == path and not exists(path) and exists(raw) else path


def _existing_parts(path: str, exists: Callable[[str], bool]) -> str:
    done = "/" if path.startswith("/") else ""
    for part in path.strip("/").split("/"):
        plain, raw = os.path.join(done, part), os.path.join(done, _unescaped(part))
        done = raw if not exists(plain) and exists(raw) else plain
    return done


def _unescaped(name: str) -> str:
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), name.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
