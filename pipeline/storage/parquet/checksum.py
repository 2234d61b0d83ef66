"""A SHA-256 of a whole Parquet file, stored inside the file where other readers of Parquet ignore it.

The Parquet format has checksums for the contents of pages only. Nothing detects a flipped bit in a page header or in
the footer, which has the schema, the offsets of the columns and the metadata. Readers find the footer from the end of
the file, and the pages from the footer, so they ignore bytes between the last page and the footer (page indices and
Bloom filters are stored there too). The checksum block is stored there:

    "PAR1" | pages | mark (16 bytes) | SHA-256 of all before the mark | SHA-256 of that and the footer | footer | ending

There are two digests because some readers only fetch the end of a file. Files of older versions and of other programs
have no checksum block, and are accepted without one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

_MARK = b"trackmill.sha256"
_SUM = hashlib.sha256().digest_size
CHECKSUM_BYTES = len(_MARK) + 2 * _SUM
_ENDING_BYTES = 8
_BLOCK = 8 << 20
_LONGEST_END = 16 << 20
"""Of a footer and the block before it; more is a length that lies."""


class ChecksumMismatch(ValueError):
    """The bytes of a file do not match its checksum."""


def with_checksum(data: bytes) -> bytes:
    """The bytes of a Parquet file, with the checksum block added."""
    begin = _footer_begin(data[-_ENDING_BYTES:], len(data))
    return data[:begin] + _block(hashlib.sha256(data[:begin]).digest(), data[begin:]) + data[begin:]


def add_checksum(path: Path) -> str:
    """Add the checksum block to a Parquet file, in place.

    Returns:
        The digest of pages and footer, in hexadecimal: no two files with other contents have the same.

    Raises:
        OSError: the file could not be read or written; it may be damaged then.
    """
    size = path.stat().st_size
    with open(path, "r+b") as handle:
        handle.seek(size - _ENDING_BYTES)
        begin = _footer_begin(handle.read(), size)
        handle.seek(0)
        pages, left = hashlib.sha256(), begin
        while left and (data := handle.read(min(left, _BLOCK))):
            pages.update(data)
            left -= len(data)
        footer = handle.read()
        handle.seek(begin)
        block = _block(pages.digest(), footer)
        handle.write(block + footer)
        handle.flush()
        os.fsync(handle.fileno())
    return block[-_SUM:].hex()


def check_file_checksum(data: bytes) -> None:
    """Check the bytes of a whole Parquet file; one without a checksum block passes.

    Raises:
        ChecksumMismatch: the digest differs.
    """
    begin = _footer_begin(data[-_ENDING_BYTES:], len(data))
    place = begin - CHECKSUM_BYTES
    if place < 0 or not data.startswith(_MARK, place):
        return
    check_footer_checksum(data[place:])
    if hashlib.sha256(memoryview(data)[:place]).digest() != data[place + len(_MARK) : place + len(_MARK) + _SUM]:
        raise ChecksumMismatch("its checksum differs")


def check_stored_checksum(handle: IO[bytes], size: int) -> None:
    """Check a whole Parquet file on disk, a few megabytes at a time; one without a checksum block passes.

    Args:
        handle: can seek.
        size: of the file in bytes, at least 12.

    Raises:
        ChecksumMismatch: the digest differs, or the file became shorter.
    """
    handle.seek(size - _ENDING_BYTES)
    place = _footer_begin(handle.read(_ENDING_BYTES), size) - CHECKSUM_BYTES
    if place < 0:
        return
    handle.seek(place)
    end = handle.read()
    if not end.startswith(_MARK):
        return
    check_footer_checksum(end)
    handle.seek(0)
    pages = hashlib.sha256()
    while place and (block := handle.read(min(place, _BLOCK))):
        pages.update(block)
        place -= len(block)
    if place or pages.digest() != end[len(_MARK) : len(_MARK) + _SUM]:
        raise ChecksumMismatch("its checksum differs")


def check_footer_checksum(end: bytes) -> None:
    """Check the footer alone.

    Args:
        end: the file from `CHECKSUM_BYTES` before the footer on; passes if it does not begin with a checksum block.

    Raises:
        ChecksumMismatch: the digest differs.
    """
    if end.startswith(_MARK) and end[:CHECKSUM_BYTES] != _block(
        end[len(_MARK) : len(_MARK) + _SUM], end[CHECKSUM_BYTES:]
    ):
        raise ChecksumMismatch("the checksum of its footer differs")


def stored_digest(read: Callable[[int, int], bytes], size: int) -> str:
    """What `add_checksum` returned for a file, read from its end; "" if it has no checksum block.

    Args:
        read: gives the bytes at an offset, of a length.
        size: of the file in bytes.

    Raises:
        ChecksumMismatch: the digest of its footer differs.
    """
    if size < CHECKSUM_BYTES + _ENDING_BYTES:
        return ""
    place = _footer_begin(read(size - _ENDING_BYTES, _ENDING_BYTES), size) - CHECKSUM_BYTES
    if place < 0 or size - place > _LONGEST_END:
        return ""
    end = read(place, size - place)
    if not end.startswith(_MARK):
        return ""
    check_footer_checksum(end)
    return end[len(_MARK) + _SUM : CHECKSUM_BYTES].hex()


def _block(pages: bytes, footer: bytes) -> bytes:
    return _MARK + pages + hashlib.sha256(pages + footer).digest()


def _footer_begin(ending: bytes, size: int) -> int:
    return size - _ENDING_BYTES - int.from_bytes(ending[:4], "little")
