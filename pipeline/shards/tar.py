"""Tar in its plainest form (POSIX ustar): written byte for byte the same every time, read without trusting it.

Members are regular files with short relative names and no extended headers; nothing records who wrote them or when.
That makes two runs comparable by hash, lets a double write do no harm, and lets a reader walk the headers itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO

from xxhash import xxh3_64, xxh3_64_intdigest

from trackmill.schemas.errors import InputError

BLOCK = 512
END = b"\0" * (2 * BLOCK)
_OCTAL = re.compile(rb"^[0-7]+$")
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")


class BadShard(InputError):
    """A tar that Trackmill did not write or that was damaged; the text names shard and member."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a tar: its name, and where its bytes begin and how many there are."""

    name: str
    offset: int
    size: int


def header(name: str, size: int) -> bytes:
    """The 512-byte ustar header of a regular file: mode 0644, owner 0, time 0.

    Raises:
        ValueError: a name longer than 100 bytes or with a path in it, or a file of 8 GiB or more.
    """
    encoded = name.encode("ascii")
    if len(encoded) > 100 or not _NAME.match(name):
        raise ValueError(f"{name!r} cannot be a member's name")
    if size >= 8 << 30:
        raise ValueError(f"{name!r} has {size} bytes; ustar stops at 8 GiB")
    fields = b"".join(
        (
            encoded.ljust(100, b"\0"),
            b"0000644\0",
            b"0000000\0",
            b"0000000\0",
            f"{size:011o}\0".encode(),
            b"00000000000\0",
            b" " * 8,
            b"0",
            b"\0" * 100,
            b"ustar\x0000",
            b"\0" * 64,  # owner and group names
            b"0000000\0",
            b"0000000\0",
            b"\0" * 167,
        )
    )
    checksum = f"{sum(fields):06o}\0 ".encode()
    return fields[:148] + checksum + fields[156:]


def padding(size: int) -> int:
    """Zero bytes after a member of `size` bytes."""
    return -size % BLOCK


def member_size(size: int) -> int:
    """Bytes a member takes in the tar: header, data, padding."""
    return BLOCK + size + padding(size)


def parse_header(block: bytes, position: int, where: str) -> Member:
    """Read one header block that stands at `position` of the tar `where`.

    Raises:
        BadShard: a checksum that is off, a member that is no regular file, a name with a path in it.
    """
    if len(block) < BLOCK:
        raise BadShard(f"{where}: cut off inside the header at byte {position}")
    name = block[:100].rstrip(b"\0").decode("utf-8", "replace")
    stored, size = _octal(block[148:156]), _octal(block[124:136])
    if stored is None:
        raise BadShard(f"{where}: no tar header at byte {position}")
    if size is None:
        raise BadShard(f"{where}: member {name!r} at byte {position} has no valid size")
    if stored != sum(block[:148]) + 32 * 8 + sum(block[156:]):
        raise BadShard(f"{where}: header of {name!r} at byte {position} fails its checksum")
    if block[156:157] not in (b"0", b"\0"):
        raise BadShard(f"{where}: member {name!r} is not a regular file (type {block[156:157]!r})")
    if not _NAME.match(name) or any(block[345:500]):
        raise BadShard(f"{where}: member name {name!r} has a path in it or characters that no sample has")
    return Member(name, position + BLOCK, size)


def _octal(field: bytes) -> int | None:
    # int() would also take a sign, blanks and underscores, and a negative size would walk in circles.
    digits = field.rstrip(b" \0")
    return int(digits, 8) if _OCTAL.match(digits) else None


def checksum(data: bytes | memoryview) -> int:
    """What a receipt keeps of a sample's byte range: its XXH3-64 as a signed number, and 1 instead of 0."""
    return _signed(xxh3_64_intdigest(data))


def _signed(digest: int) -> int:
    return (digest - (1 << 64) if digest >> 63 else digest) or 1


class Checksum:
    """`checksum` of bytes that come piece by piece."""

    def __init__(self) -> None:
        self._sum = xxh3_64()

    def write(self, data: bytes) -> None:
        """Add a piece."""
        self._sum.update(data)

    def value(self) -> int:
        """Of all pieces so far."""
        return _signed(self._sum.intdigest())


def raw_checksum(members: list[tuple[str, bytes]]) -> int:
    """`checksum` of the byte range in which these members lie, as `TarWriter` writes them."""
    found = Checksum()
    writer = TarWriter(found)  # type: ignore[arg-type]
    for name, data in members:
        writer.add(name, data)
    return found.value()


class TarWriter:
    """Appends members to a binary file and keeps count.

    Args:
        handle: where the tar goes; only written to, from front to back.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.position = 0

    def add(self, name: str, data: bytes) -> None:
        """Append one member."""
        self._handle.write(header(name, len(data)))
        self._handle.write(data)
        self._handle.write(b"\0" * padding(len(data)))
        self.position += member_size(len(data))

    def finish(self) -> None:
        """Write the end mark."""
        self._handle.write(END)
        self.position += len(END)
