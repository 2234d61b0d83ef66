"""Where an Ogg file is damaged: its pages are numbered and have checksums (RFC 3533), FFmpeg drops what is wrong."""

from __future__ import annotations

import zlib
from typing import IO

_HEAD = 27
_MOST_OF_PAGE = _HEAD + 255 + 255 * 255
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def first_damage(handle: IO[bytes]) -> int | None:
    """Where the last page begins behind which others are missing or wrong; None where all is in order.

    The handle's position stays as it is.
    """
    before = handle.tell()
    try:
        return _first_damage(handle, handle.seek(0, 2))
    finally:
        handle.seek(before)


def _first_damage(handle: IO[bytes], end: int) -> int | None:
    position = last = 0
    numbers: dict[bytes, int] = {}
    while position < end:
        handle.seek(position)
        page = handle.read(_MOST_OF_PAGE)
        size = _size(page)
        if not size or _checksum(page[:size]) != int.from_bytes(page[22:26], "little"):
            return last
        stream, number = page[14:18], int.from_bytes(page[18:22], "little")
        begins = page[5] & 0x02  # another recording may be joined behind the first
        if not begins and number != numbers.get(stream, number - 1) + 1:
            return last
        numbers[stream] = number
        last, position = position, position + size
    return None


def _size(page: bytes) -> int:
    """Bytes of the page; 0 where there is none, or not all of it."""
    if len(page) < _HEAD or not page.startswith(b"OggS"):
        return 0
    size = _HEAD + page[26] + sum(page[_HEAD : _HEAD + page[26]])
    return size if size <= len(page) else 0


def _checksum(page: bytes) -> int:
    """CRC-32 with the highest bit first, begun with 0: zlib's, on mirrored bits."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    return int(f"{zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)
