"""The directory of a zip, entry by entry, read with bounds on all that it declares (PKWARE's APPNOTE 6.3.10).

Python's `zipfile` reads a directory of any length at once, makes an object of each entry, and believes their places.
Of a good zip this gives what `zipfile` gives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np

MAX_DIRECTORY_BYTES = 1 << 30
"""Longest directory that is read: that of ImageNet in one zip has 250 MB for 1.9 million members."""

MAX_MEMBERS = 5_000_000
"""Most members of a zip that is read."""

_END = struct.Struct("<4s4H2LH")  # signature, disks, entries, bytes and place of the directory, length of the comment
_END_MAGIC = b"PK\5\6"
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_MAGIC = b"PK\6\7"
_LONG_END = struct.Struct("<4sQ2H2L4Q")
_LONG_END_MAGIC = b"PK\6\6"
_ENTRY = struct.Struct("<4s6H3L5H2L")
_ENTRY_MAGIC = b"PK\1\2"
MEMBER = struct.Struct("<4s5H3L2H")
MEMBER_MAGIC = b"PK\3\4"
_LONGEST_COMMENT = 65_535
_READ_AT_ONCE = 1 << 20
_LONGEST_ENTRY = _ENTRY.size + 3 * 65_535
_ELSEWHERE = 0xFFFFFFFF
"""In place of a number that needs more than 32 bits and stands in the extra field 1."""

_ENCRYPTED, _UTF8 = 0x1, 0x800


class BadZip(Exception):
    """A zip cannot be used; the text says why, without its name."""


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


def read_directory(handle: IO[bytes]) -> Iterator[tuple[str, ZipEntry]]:
    """The members of a zip with their names, folders among them, in the order of the directory.

    A name that is said to be UTF-8 and is not has lone surrogates, as Python has them of file names.

    Args:
        handle: seekable.

    Raises:
        BadZip: no directory, one that does not fit the file, or members that lie beyond it or over each other.
    """
    begin, size, shift = _find_directory(handle)
    if size > MAX_DIRECTORY_BYTES:
        raise BadZip(f"its directory has {size} bytes, more than {MAX_DIRECTORY_BYTES}; pack it into several")
    places: list[int] = []
    lengths: list[int] = []
    data, place, left = b"", 0, size
    while left or place < len(data):
        if len(data) - place < _LONGEST_ENTRY and left:
            handle.seek(begin + size - left)
            more = handle.read(min(left, _READ_AT_ONCE))
            if not more:
                raise BadZip("it ends within its directory")
            data, place, left = data[place:] + more, 0, left - len(more)
            continue
        name, entry, length = _parse(data, place, shift)
        if entry.offset < 0 or entry.offset + MEMBER.size + entry.packed > begin:
            raise BadZip(f"the zip is damaged: its member {name[:80]!r} is said to lie outside of the file")
        if len(places) == MAX_MEMBERS:
            raise BadZip(f"it has more than {MAX_MEMBERS} members; pack it into several")
        places.append(entry.offset)
        lengths.append(MEMBER.size + entry.packed)
        yield name, entry
        place += length
    starts, spans = np.array(places, np.int64), np.array(lengths, np.int64)
    order = np.argsort(starts, kind="stable")
    if (starts[order][:-1] + spans[order][:-1] > starts[order][1:]).any():
        raise BadZip("members lie over each other, as in a zip that is made to unfold to far more than it holds")


def _find_directory(handle: IO[bytes]) -> tuple[int, int, int]:
    """Where the directory begins, its length, and how far all places are shifted because something stands in front."""
    total = handle.seek(0, 2)
    tail_begin = max(0, total - _END.size - _LONGEST_COMMENT)
    handle.seek(tail_begin)
    tail = handle.read(total - tail_begin)
    place = tail.rfind(_END_MAGIC, 0, len(tail) - _END.size + len(_END_MAGIC))
    if place < 0:
        raise BadZip("there is no directory at its end")
    size, stated = _END.unpack_from(tail, place)[5:7]
    end = tail_begin + place
    locator = end - _LOCATOR.size
    if locator >= 0:
        handle.seek(locator)
        magic, _, long_place, _ = _LOCATOR.unpack(handle.read(_LOCATOR.size))
        if magic == _LOCATOR_MAGIC:
            # It stands right before its locator; what is in front of the zip shifts the place that the latter states.
            end = locator - _LONG_END.size
            handle.seek(max(0, end))
            record = handle.read(_LONG_END.size)
            if end < 0 or not record.startswith(_LONG_END_MAGIC):
                end = min(long_place, total)
                handle.seek(end)
                record = handle.read(_LONG_END.size)
            if len(record) < _LONG_END.size or not record.startswith(_LONG_END_MAGIC):
                raise BadZip("the end of its directory is not where it should be")
            size, stated = _LONG_END.unpack(record)[8:10]
    begin = end - size
    if begin < 0:
        raise BadZip(f"its directory is said to have {size} bytes, more than stand in front of its end")
    return begin, size, begin - stated


def _parse(data: bytes, place: int, shift: int) -> tuple[str, ZipEntry, int]:
    """Name, entry and length of the entry of the directory at `place`."""
    if len(data) - place < _ENTRY.size or not data.startswith(_ENTRY_MAGIC, place):
        raise BadZip("its directory is damaged")
    fields = _ENTRY.unpack_from(data, place)
    flags, method, crc, packed, size = fields[3], fields[4], *fields[7:10]
    name_length, extra_length, comment_length = fields[10:13]
    offset = fields[16]
    name_begin = place + _ENTRY.size
    extra_begin = name_begin + name_length
    length = _ENTRY.size + name_length + extra_length + comment_length
    if place + length > len(data):
        raise BadZip("its directory is damaged: an entry goes on behind its end")
    if _ELSEWHERE in (packed, size, offset):
        size, packed, offset = _long_numbers(data[extra_begin : extra_begin + extra_length], [size, packed, offset])
    raw = data[name_begin:extra_begin].partition(b"\0")[0]
    name = raw.decode("utf-8", "surrogateescape") if flags & _UTF8 else raw.decode("cp437")
    return name, ZipEntry(offset + shift, packed, size, method, crc, bool(flags & _ENCRYPTED)), length


def _long_numbers(extra: bytes, numbers: list[int]) -> list[int]:
    """Size, packed size and offset, those that need it taken from the extra field 1, where they stand in this order."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            found = iter(struct.unpack_from(f"<{min(length, len(extra) - place - 4) // 8}Q", extra, place + 4))
            return [next(found, number) if number == _ELSEWHERE else number for number in numbers]
        place += 4 + length
    return numbers
