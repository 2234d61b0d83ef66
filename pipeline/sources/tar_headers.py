"""The headers of a tar, one by one: ustar, pax and GNU's, read with bounds on all that a header declares.

Python's `tarfile` walks in circles on a negative size before 3.11.14 (CVE-2025-8194), calls itself for each of many
headers in a row, and reads an extended header of any length at once. Here a walk only ever goes forward, its memory is
bounded by the constants below, and its time by the size of the tar. Of a good tar it gives what `tarfile` gives.

The layout is that of POSIX.1-2017, "pax Interchange Format", and of the GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

BLOCK = 512

MAX_EXTENDED_BYTES = 16 << 20
"""Longest extended header (pax records, GNU long names) that is read. Go's archive/tar stops at 1 MiB; a pax map of a
sparse file may be longer."""

MAX_NAME_BYTES = 4096
"""Longest name of a member: PATH_MAX of Linux, so that no longer one can have come from a file."""

Kind = Literal["file", "folder", "other", "sparse"]

_NUL = b"\0"
_ZEROS = bytes(BLOCK)
_SKIPPED_AT_ONCE = 1 << 20
_FILE_TYPES = (b"0", b"\0", b"7")  # regular, as V7 wrote it, contiguous
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"
_GNU_TYPES = (_LONG_NAME, _LONG_LINK, _SPARSE)
_PAX_TYPES = (b"x", b"X")  # POSIX, Solaris
_GLOBAL = b"g"
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"[0-9]{1,20}")


class DamagedTar(Exception):
    """From a header on, the tar makes no sense.

    Args:
        offset: of that header, in bytes.
        reason: what is wrong with it.
    """

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TarMember:
    """What the headers of a member say.

    Args:
        name: bytes that are no UTF-8 are lone surrogates, as Python has them of file names.
        offset: where its contents begin, in bytes.
        size: of its contents in the tar.
        end: where the next header begins.
        kind: `other` is a link, a device, or of a type that nobody knows; `folder` has no contents.
    """

    name: str
    offset: int
    size: int
    end: int
    kind: Kind


@dataclass(slots=True)
class _Extended:
    """What the extended headers before a member say of it; the first to say something counts, as in `tarfile`."""

    name: bytes | None = None
    size: int | None = None
    sparse: bool = False


def walk_headers(handle: IO[bytes], total: int) -> Iterator[TarMember]:
    """The members of an uncompressed tar, in their order, up to its end mark.

    Args:
        handle: seekable; only headers are read.
        total: size of the tar in bytes. A member that declares more than is left is given before the error.

    Raises:
        DamagedTar: a header that is none, is cut off, or declares what cannot be. The members before it were given.
    """
    position = 0
    extended = _Extended()
    begun = False  # whether extended headers stand before a member that has not come yet
    while True:
        handle.seek(position)
        block = handle.read(BLOCK)
        if block == _ZEROS and not begun:
            return
        size, kind = _check(block, position)
        data, end = position + BLOCK, position + BLOCK + _padded(size)
        if kind in (_LONG_NAME, _LONG_LINK, _GLOBAL, *_PAX_TYPES):
            _read_extended(handle, position, kind, size, total, extended)
            begun = begun or kind != _GLOBAL
            position = end
            continue
        if kind == _SPARSE:
            data = _behind_sparse_map(handle, position, block, total)
        size = size if extended.size is None else extended.size
        member = _member(block, kind, data, size, extended)
        yield member
        if member.end > total:
            raise DamagedTar(total, "it ends inside a member, or right behind one without an end mark")
        position, extended, begun = member.end, _Extended(), False


def _check(block: bytes, position: int) -> tuple[int, bytes]:
    """Size and type that a header block states."""
    if len(block) < BLOCK:
        raise DamagedTar(position, "it ends inside a header" if block else "it ends without an end mark")
    if not _sums_to(block, _number(block[148:156])):
        raise DamagedTar(position, "no header with a right checksum is there")
    size = _number(block[124:136])
    if size is None or size < 0:
        raise DamagedTar(position, f"the header declares a size of {'no number' if size is None else size}")
    return size, block[156:157]


def _sums_to(block: bytes, stated: int | None) -> bool:
    """Whether a header's bytes, its checksum taken as blanks, have this sum; some old programs summed signed bytes."""
    rest = block[:148] + block[156:]
    unsigned = sum(rest) + 8 * ord(" ")
    return stated == unsigned or stated == unsigned - 256 * sum(byte > 127 for byte in rest)


def _number(field: bytes) -> int | None:
    """A number in octal digits, or in GNU's base-256; None where it is neither."""
    if field[0] in (0o200, 0o377):
        value = int.from_bytes(field[1:], "big")
        return value if field[0] == 0o200 else value - (1 << 8 * (len(field) - 1))
    digits = field.partition(_NUL)[0].strip()
    if not digits:
        return 0
    # int() would also take a sign, underscores and a prefix.
    return int(digits, 8) if _OCTAL.fullmatch(digits) else None


def _member(block: bytes, kind: bytes, data: int, size: int, extended: _Extended) -> TarMember:
    name = block[:100].partition(_NUL)[0]
    is_folder = kind == b"5" or (kind == b"\0" and name.endswith(b"/"))  # V7 had no type for folders
    prefix = block[345:500].partition(_NUL)[0]
    if prefix and kind not in _GNU_TYPES:
        name = prefix + b"/" + name
    name = name if extended.name is None else extended.name
    what: Kind = "other"
    if is_folder:
        what = "folder"
    elif kind == _SPARSE or (extended.sparse and kind in _FILE_TYPES):
        what = "sparse"
    elif kind in _FILE_TYPES:
        what = "file"
    end = data if is_folder or kind in _WITHOUT_DATA else data + _padded(size)
    return TarMember(name.decode("utf-8", "surrogateescape"), data, size, end, what)


def _read_extended(handle: IO[bytes], position: int, kind: bytes, size: int, total: int, extended: _Extended) -> None:
    """Take what an extended header says of the member behind it."""
    if position + BLOCK + size > total:
        raise DamagedTar(position, f"it ends inside an extended header of {size} bytes")
    if kind == _LONG_LINK:
        return
    if kind == _LONG_NAME:
        name = handle.read(min(size, MAX_NAME_BYTES + 1)).partition(_NUL)[0]
        extended.name = name if extended.name is None else extended.name
        return
    if size > MAX_EXTENDED_BYTES:
        raise DamagedTar(position, f"an extended header has {size} bytes; {MAX_EXTENDED_BYTES} are the most")
    said = _pax_records(handle.read(size), position)
    if kind == _GLOBAL:
        if said.name is not None or said.size is not None or said.sparse:
            raise DamagedTar(position, "a global header gives all members one name or one size")
        return
    extended.name = said.name if extended.name is None else extended.name
    extended.size = said.size if extended.size is None else extended.size
    extended.sparse |= said.sparse


def _pax_records(data: bytes, position: int) -> _Extended:
    """Records `LENGTH KEY=VALUE` and a newline, LENGTH being that of all of it; of two with one key the last counts."""
    said = _Extended()
    place = 0
    while place < len(data) and data[place]:
        blank = data.find(b" ", place, place + 21)
        digits = data[place:blank] if blank >= 0 else b""
        length = int(digits) if _DECIMAL.fullmatch(digits) else 0
        end = place + length
        equals = data.find(b"=", blank, end)
        if not length or end > len(data) or equals < 0 or data[end - 1] != ord("\n"):
            raise DamagedTar(position, "an extended header holds a record whose length is wrong")
        key = data[blank + 1 : equals]
        if key in (b"path", b"GNU.sparse.name"):
            said.name = data[equals + 1 : end - 1].rstrip(b"/")
        elif key == b"size":
            number = data[equals + 1 : end - 1]
            if not _DECIMAL.fullmatch(number):
                raise DamagedTar(position, "an extended header declares a size that is no number")
            said.size = int(number)
        if key.startswith(b"GNU.sparse."):
            said.sparse = True
        place = end
    return said


def _behind_sparse_map(handle: IO[bytes], position: int, block: bytes, total: int) -> int:
    """Where the contents of a sparse file of the old GNU kind begin: its map may go on for some blocks."""
    data = position + BLOCK
    goes_on = bool(block[482])
    while goes_on:
        if data + BLOCK > total:
            raise DamagedTar(position, "it ends inside the map of a sparse file")
        handle.seek(data)
        chunk = handle.read(_SKIPPED_AT_ONCE)
        for start in range(0, len(chunk) - BLOCK + 1, BLOCK):
            data += BLOCK
            goes_on = bool(chunk[start + 504])
            if not goes_on:
                break
    return data


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
