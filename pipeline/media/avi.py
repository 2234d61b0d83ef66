"""Whether an AVI file has its index, and where its chunks stop standing one behind the other (RIFF, OpenDML 1.02)."""

from __future__ import annotations

import re
from typing import IO

CHUNK_HEAD = 8
"""Bytes before the data of a chunk; FFmpeg says where the data is."""

_CONTAINERS = (b"LIST", b"RIFF")
_CHUNK = re.compile(rb"[0-9A-F]{2}(dc|db|wb|tx|pc|sb)|ix[0-9]{2}|JUNK|idx1|LIST|RIFF", re.DOTALL | re.IGNORECASE)


def first_damage(handle: IO[bytes], position: int) -> int | None:
    """Where the last chunk begins behind which none follows, though the file goes on; None where all is in order.

    Args:
        handle: seekable; its position stays as it is.
        position: of the first chunk to look at.
    """
    before = handle.tell()
    try:
        end = handle.seek(0, 2)
        last = position
        while position + CHUNK_HEAD <= end:
            handle.seek(position)
            head = handle.read(CHUNK_HEAD)
            if not _CHUNK.fullmatch(head[:4]):
                return last
            last = position
            size = int.from_bytes(head[4:], "little")
            position += CHUNK_HEAD + (4 if head[:4] in _CONTAINERS else size + size % 2)
        return None
    finally:
        handle.seek(before)


def has_index(handle: IO[bytes]) -> bool:
    """Whether the index behind the data is there and whole; the handle's position stays as it is."""
    before = handle.tell()
    try:
        end, position = handle.seek(0, 2), 12  # behind RIFF, its size and AVI
        while position + CHUNK_HEAD <= end:
            handle.seek(position)
            head = handle.read(CHUNK_HEAD)
            size = int.from_bytes(head[4:], "little")
            position += CHUNK_HEAD + size + size % 2
            if head[:4] == b"idx1":
                return position - size % 2 <= end
        return False
    finally:
        handle.seek(before)
