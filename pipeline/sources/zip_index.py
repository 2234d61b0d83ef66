"""Where the files inside a zip lie, by its directory, and the bytes of one: nothing else of the zip is read."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.sources.tar_index import is_hidden
from trackmill.pipeline.storage.credentials import path_error
from trackmill.pipeline.storage.files import open_for_seeking, read_bytes, retry
from trackmill.pipeline.storage.names import spelt

_HEADER = struct.Struct("<4s5H3L2H")
_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """What the directory says of one member.

    Args:
        offset: of the member's own header.
        packed, size: its bytes in the zip, and when unpacked.
        method: 0 stored, 8 deflated, others are not read.
        crc: CRC-32 of the unpacked bytes.
        encrypted: whether a password is needed.
    """

    offset: int
    packed: int
    size: int
    method: int
    crc: int
    encrypted: bool

    def as_details(self) -> dict[str, Any]:
        """For the details of an item; `ZipEntry(**details)` gives it back."""
        return asdict(self)


def index_zips(uris: Sequence[str]) -> Iterator[dict[str, ZipEntry] | str]:
    """The members of each zip by name, in the order given; where one cannot be read, the reason why."""
    return probe_files(uris, _index_or_reason, "zips", str)


def index_zip(url: str) -> dict[str, ZipEntry]:
    """Read the directory of a zip; what macOS adds and other hidden members are passed over.

    Raises:
        BadItem: not a zip, or damaged.
        OSError: could not be fetched.
    """
    with open_for_seeking(url) as handle:
        try:
            with zipfile.ZipFile(handle) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, EOFError) as error:
            raise BadItem(f"{url}: not a zip, or cut short, since its directory cannot be read: {error}") from error
    return {
        spelt(info.filename): ZipEntry(
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.compress_type,
            info.CRC,
            bool(info.flag_bits & _ENCRYPTED),
        )
        for info in infos
        if not info.is_dir() and not is_hidden(info.filename)
    }


def read_member(uri: str, entry: ZipEntry, name: str, max_bytes: int) -> bytes:
    """The unpacked bytes of one member.

    Args:
        uri: the zip.
        entry: see `index_zip`.
        name: what the errors should name.
        max_bytes: refused when it is larger, packed or not.

    Raises:
        BadItem: (or a subclass) too large, encrypted, packed by another method, or damaged.
        OSError: could not be fetched.
    """
    if entry.encrypted:
        raise BadItem(f"{name}: is encrypted; unpack the zip with its password and mine the files")
    if entry.method not in _METHODS:
        raise BadItem(f"{name}: is packed by method {entry.method}; only stored and deflated members are read")
    if max(entry.size, entry.packed) > max_bytes:
        raise BadItem(f"{name}: {entry.size} bytes, more than `read.max_item_bytes` = {max_bytes}")
    magic, *_, name_length, extra_length = _HEADER.unpack(read_bytes(uri, entry.offset, _HEADER.size))
    if magic != _MAGIC:
        raise BadItem(f"{name}: the zip is damaged: there is no member at byte {entry.offset}")
    data = read_bytes(uri, entry.offset + _HEADER.size + name_length + extra_length, entry.packed)
    if entry.method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.size + 1)
        except zlib.error as error:
            raise BadItem(f"{name}: the packed bytes are damaged: {error}") from error
    if len(data) < entry.size:
        raise TruncatedMedia(f"{name}: {len(data)} of {entry.size} bytes are there")
    if len(data) > entry.size or zlib.crc32(data) != entry.crc:
        raise BadItem(f"{name}: its bytes are not those that were packed (another checksum): the zip is damaged")
    return data


def _index_or_reason(url: str) -> dict[str, ZipEntry] | str:
    try:
        return retry(lambda: index_zip(url), url)
    except BadItem as error:
        return str(error).removeprefix(f"{url}: ")
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"the zip cannot be read: {path_error(error) or error}"
