"""Whether a Matroska or WebM file was cut short: its outermost element says how many bytes follow (RFC 8794, 9559)."""

from __future__ import annotations

from typing import IO

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


def missing_bytes(handle: IO[bytes]) -> int:
    """How many bytes the file lacks at its end; 0 where it is whole, says no length, or is no Matroska.

    A recording that was streamed or ended by a crash says no length: whether it is whole cannot be known.

    Args:
        handle: seekable; its position stays, since a container that reads from it goes on there.
    """
    before = handle.tell()
    try:
        return _missing(handle, handle.seek(0, 2))
    finally:
        handle.seek(before)


def _missing(handle: IO[bytes], end: int) -> int:
    handle.seek(0)
    for element in (_EBML, _SEGMENT):
        if _number(handle, keep_marker=True) != element:
            return 0
        size = _number(handle, keep_marker=False)
        if size is None:
            return 0
        if element == _SEGMENT:
            return max(0, handle.tell() + size - end)
        handle.seek(size, 1)
    return 0


def _number(handle: IO[bytes], keep_marker: bool) -> int | None:
    """A number of 1 to 8 bytes whose first bit that is set says how many; None where it is unknown or not there."""
    first = handle.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = handle.read(length - 1)
    if len(rest) != length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    if keep_marker:
        return value
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 else value
