"""A checksum over the whole of a Parquet file, inside of it, where every reader of Parquet looks past it.

Parquet has checksums of pages alone. A flipped bit in the header of a page or in the footer, which has the schema, the
places of the columns and all that is written down beside the table, is noticed by nothing. Readers find the footer from
the end of the file and the pages by the footer, so what stands between the last page and the footer means nothing to
them (indices of pages and Bloom filters stand there too). There the seal stands:

    "PAR1" | pages | mark (16 bytes) | SHA-256 of all before the mark | SHA-256 of that and the footer | footer | ending

Two sums, since some only read the end of a file. Files of older versions, and of other programs, have no seal.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_MARK = b"trackmill.sha256"
_SUM = hashlib.sha256().digest_size
SEAL_BYTES = len(_MARK) + 2 * _SUM
_ENDING_BYTES = 8
_BLOCK = 8 << 20


class BrokenSeal(ValueError):
    """A file says something else than was written."""


def sealed(data: bytes) -> bytes:
    """A whole Parquet file with its seal."""
    begin = _footer_begin(data[-_ENDING_BYTES:], len(data))
    return data[:begin] + _seal(hashlib.sha256(data[:begin]).digest(), data[begin:]) + data[begin:]


def seal_file(path: Path) -> None:
    """Seal a whole Parquet file where it lies.

    Raises:
        OSError: could not be read or written; the file is of no use then.
    """
    size = path.stat().st_size
    with open(path, "r+b") as handle:
        handle.seek(size - _ENDING_BYTES)
        begin = _footer_begin(handle.read(), size)
        handle.seek(0)
        pages, left = hashlib.sha256(), begin
        while left and (block := handle.read(min(left, _BLOCK))):
            pages.update(block)
            left -= len(block)
        footer = handle.read()
        handle.seek(begin)
        handle.write(_seal(pages.digest(), footer) + footer)
        handle.flush()
        os.fsync(handle.fileno())


def check_seal(data: bytes) -> None:
    """Compare a whole Parquet file with its seal; nothing happens where it has none.

    Raises:
        BrokenSeal: it differs.
    """
    begin = _footer_begin(data[-_ENDING_BYTES:], len(data))
    place = begin - SEAL_BYTES
    if place < 0 or not data.startswith(_MARK, place):
        return
    check_end(data[place:])
    if hashlib.sha256(memoryview(data)[:place]).digest() != data[place + len(_MARK) : place + len(_MARK) + _SUM]:
        raise BrokenSeal("its checksum is another one")


def check_end(end: bytes) -> None:
    """Compare the end of a Parquet file, from `SEAL_BYTES` before the footer on, with the seal if it begins with one.

    Raises:
        BrokenSeal: it differs.
    """
    if end.startswith(_MARK) and end[:SEAL_BYTES] != _seal(end[len(_MARK) : len(_MARK) + _SUM], end[SEAL_BYTES:]):
        raise BrokenSeal("the checksum of its footer is another one")


def _seal(pages: bytes, footer: bytes) -> bytes:
    return _MARK + pages + hashlib.sha256(pages + footer).digest()


def _footer_begin(ending: bytes, size: int) -> int:
    return size - _ENDING_BYTES - int.from_bytes(ending[:4], "little")
