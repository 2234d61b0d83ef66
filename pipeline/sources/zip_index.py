"""Where the files inside a zip lie, by its directory, and the bytes of one: nothing else of the zip is read."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.sources.tar_index import is_hidden
from trackmill.pipeline.sources.zip_directory import MEMBER, MEMBER_MAGIC, BadZip, ZipEntry, read_directory
from trackmill.pipeline.storage.credentials import path_error
from trackmill.pipeline.storage.files import open_for_seeking, read_bytes
from trackmill.pipeline.storage.names import escaped
from trackmill.pipeline.storage.ranges import Place, open_place
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import is_local

_STORED, _DEFLATED = 0, 8

MAX_NAMES_BYTES = 512 << 20
"""Most bytes in all names of a zip's members: what an index takes in memory follows from it."""


def index_zips(uris: Sequence[str]) -> Iterator[dict[str, ZipEntry] | str]:
    """The members of each zip by name, in the order given; where one cannot be read, the reason why."""
    return probe_files(uris, _index_or_reason, "zips", str)


def index_zip(url: str) -> dict[str, ZipEntry]:
    """Read the directory of a zip; what macOS adds and other hidden members are passed over.

    Raises:
        BadItem: not a zip, or damaged.
        OSError: could not be fetched.
    """
    found: dict[str, ZipEntry] = {}
    left = MAX_NAMES_BYTES
    with open_for_seeking(url) as handle:
        try:
            for raw, entry in read_directory(handle):
                name = escaped(raw)
                left -= len(raw)
                if left < 0:
                    raise BadZip(f"its members' names have more than {MAX_NAMES_BYTES} bytes; pack it into several")
                if name and not name.endswith("/") and not is_hidden(name):
                    found[name] = entry
        except BadZip as error:
            raise BadItem(f"{url}: not a zip, or one that is damaged or cut short: {error}") from None
    return found


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
    if entry.method not in (_STORED, _DEFLATED):
        raise BadItem(f"{name}: is packed by method {entry.method}; only stored and deflated members are read")
    if max(entry.size, entry.packed) > max_bytes:
        raise BadItem(f"{name}: {entry.size} bytes, more than `read.max_item_bytes` = {max_bytes}")
    header = _read(uri, entry.offset, MEMBER.size) if entry.offset >= 0 else b""
    if len(header) < MEMBER.size or not header.startswith(MEMBER_MAGIC):
        raise BadItem(f"{name}: the zip is damaged: there is no member at byte {entry.offset}")
    name_length, extra_length = MEMBER.unpack(header)[9:11]
    data = _read(uri, entry.offset + MEMBER.size + name_length + extra_length, entry.packed)
    if len(data) < entry.packed:
        raise TruncatedMedia(f"{name}: {len(data)} of {entry.packed} packed bytes are there: the zip is damaged")
    if entry.method == _DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.size + 1)
        except zlib.error as error:
            raise BadItem(f"{name}: the packed bytes are damaged: {error}") from error
    if len(data) < entry.size:
        raise TruncatedMedia(f"{name}: {len(data)} of {entry.size} bytes are there")
    if len(data) > entry.size or zlib.crc32(data) != entry.crc:
        raise BadItem(f"{name}: its bytes are not those that were packed (another checksum): the zip is damaged")
    return data


def _read(uri: str, offset: int, length: int) -> bytes:
    """A range of the zip; of a file on this machine what there is of it, since trying again would bring no more."""
    if not is_local(uri):
        return read_bytes(uri, offset, length)
    with open_place(Place(uri, offset, length)) as handle:
        return handle.read()


def _index_or_reason(url: str) -> dict[str, ZipEntry] | str:
    try:
        return retry(lambda: index_zip(url), url)
    except BadItem as error:
        return str(error).removeprefix(f"{url}: ")
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"the zip cannot be read: {path_error(error) or error}"
