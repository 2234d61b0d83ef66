"""Files packed with gzip, and members of zip archives: unpacked into one buffer that has a limit.

How much a file may unpack to grows with its own size, since text seldom shrinks to less than a thirtieth. What is
packed a thousandfold was made to fill memory.
"""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import zipfile
import zlib

from trackmill.pipeline.formats.errors import BadTracks

UNPACKED_FLOOR = 96 << 20
"""Every packed file may unpack to so many bytes, however small it is."""

UNPACKED_PER_BYTE = 32
"""It may also unpack to so many for each byte of its own. Track files and annotations take 4 to 20."""

MAX_DIRECTORY_BYTES = 16 << 20
"""Of the list of members at the end of an archive; read, it takes twenty times as much. 100,000 names have 10 MB."""

_CHUNK = 1 << 20
_END = struct.Struct("<4s4H2LH")
_END_64, _LOCATOR_BYTES = struct.Struct("<4sQ2H2L4Q"), 20


def gunzipped(data: bytes, where: str, max_bytes: int) -> bytes | bytearray:
    """What was packed with gzip, all of its parts.

    Args:
        data: the file.
        where: its name, for errors.
        max_bytes: what is larger is refused, whatever it was packed to.

    Raises:
        BadTracks: broken, cut off, or too large.
    """
    limit = _limit(len(data), max_bytes)
    unpacked = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as handle:
            while chunk := handle.read1(_CHUNK):
                unpacked += chunk
                if len(unpacked) > limit:
                    raise BadTracks(f"{where}: {_too_large(len(data), limit, max_bytes)}")
    except EOFError:
        raise BadTracks(f"{where}: a gzip file that ends early; copy it again") from None
    except (OSError, zlib.error) as error:
        raise BadTracks(f"{where}: a broken gzip file: {error}") from None
    return unpacked


_UNPACKING = (zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, EOFError, OSError, struct.error)
"""What `zipfile` raises on damaged fields: places before the beginning, other packing, passwords."""


def open_archive(data: bytes, where: str) -> zipfile.ZipFile:
    """A zip archive, once its list of members is known to be short enough.

    Raises:
        BadTracks: no archive, or more members than it may have.
    """
    size = _directory_bytes(data)
    if size > MAX_DIRECTORY_BYTES:
        raise BadTracks(f"{where}: its list of members has {size:,} bytes, more than {MAX_DIRECTORY_BYTES:,}")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except _UNPACKING as error:
        raise BadTracks(f"{where}: not a zip archive: {error}") from None


def member_bytes(archive: zipfile.ZipFile, name: str, where: str, max_bytes: int) -> bytes | bytearray:
    """A member of an archive.

    Args:
        archive: see `open_archive`.
        name: of the member.
        where: name of the archive, for errors.
        max_bytes: what is larger is refused, whatever it was packed to.

    Raises:
        BadTracks: it cannot be unpacked, or is too large.
    """
    unpacked = bytearray()
    try:
        packed = archive.getinfo(name).compress_size
        limit = _limit(packed, max_bytes)
        with archive.open(name) as handle:
            while chunk := handle.read(_CHUNK):
                unpacked += chunk
                if len(unpacked) > limit:
                    raise BadTracks(f"{where}: {name} {_too_large(packed, limit, max_bytes)}")
    except BadTracks:
        raise
    except (*_UNPACKING, zlib.error, lzma.LZMAError) as error:
        known = isinstance(error, (zipfile.BadZipFile, RuntimeError))
        raise BadTracks(f"{where}: cannot unpack {name}: {error if known else 'the archive is damaged'}") from None
    return unpacked


def _limit(packed: int, max_bytes: int) -> int:
    return min(max_bytes, max(UNPACKED_FLOOR, UNPACKED_PER_BYTE * packed))


def _too_large(packed: int, limit: int, max_bytes: int) -> str:
    if limit == max_bytes:
        return f"unpacks to more than {max_bytes:,} bytes"
    return (
        f"unpacks to more than {limit:,} bytes, which {packed:,} packed bytes may not (see UNPACKED_FLOOR and "
        "UNPACKED_PER_BYTE in pipeline/formats/packed.py); give the file unpacked"
    )


def _directory_bytes(data: bytes) -> int:
    """Length of an archive's list of members, as its end says; 0 where there is no end."""
    place = data.rfind(b"PK\5\6", max(0, len(data) - (1 << 16) - _END.size))
    if place < 0 or len(data) - place < _END.size:
        return 0
    size = int(_END.unpack_from(data, place)[5])
    place -= _LOCATOR_BYTES + _END_64.size
    if place >= 0 and data[place : place + 4] == b"PK\6\6":
        size = max(size if size != 0xFFFFFFFF else 0, int(_END_64.unpack_from(data, place)[8]))
    return size
