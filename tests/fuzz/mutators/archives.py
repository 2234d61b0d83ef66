"""Changes of tars and zips that keep them tars and zips: header fields with their checksum mended, members mutated."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from tests.fuzz.mutators.names import odd_name
from tests.fuzz.mutators.raw import BYTES, EXTREMES
from tests.fuzz.target import Mutator

_BLOCK = 512
# Offset and length of the fields of a ustar header.
_FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "typeflag": (156, 1),
    "linkname": (157, 100),
    "magic": (257, 8),
    "prefix": (345, 155),
}


def header_field(rng: Random, data: bytes) -> bytes:
    """A field of a member's header, its checksum mended."""
    headers = _headers(data)
    if not headers:
        return data
    at = rng.choice(headers)
    field = rng.choice(("size", "size", "size", "typeflag", "name", "linkname", "prefix", "magic", "mtime", "uid"))
    begin, length = _FIELDS[field]
    if field in ("size", "mtime", "uid"):
        value = _number(rng, length)
    elif field == "typeflag":
        value = rng.choice([b"0", b"1", b"2", b"3", b"5", b"7", b"L", b"K", b"x", b"g", b"S", b"M", b"V", b"\0", b"Z"])
    else:
        value = os.fsencode(rng.choice((odd_name(rng), f"../{odd_name(rng)}", f"/{odd_name(rng)}", "")))
    block = bytearray(data[at : at + _BLOCK])
    block[begin : begin + length] = value[:length].ljust(length, b"\0")
    return data[:at] + _summed(block) + data[at + _BLOCK :]


def pax_records(rng: Random, data: bytes) -> bytes:
    """An extended header before a member, with records that say something else, or too much."""
    headers = _headers(data) or [0]
    at = rng.choice(headers)
    key = rng.choice((b"path", b"size", b"linkpath", b"GNU.sparse.map", b"GNU.sparse.realsize", b"hdrcharset", b"x"))
    value = rng.choice(
        (str(rng.choice(EXTREMES)).encode(), os.fsencode(odd_name(rng)), b"x" * 70_000, b"", b"0,1,2", b"9" * 5000)
    )
    body = _record(key, value)
    body = rng.choice((body, body[1:], b"9" * 30 + body, body * 200, b"0 " + body, b"-5 " + body))
    return data[:at] + _member(rng.choice((b"x", b"x", b"g")), b"pax", body) + data[at:]


def many_headers(rng: Random, data: bytes) -> bytes:
    """Hundreds of extended headers in a row, of either kind."""
    kind = rng.choice((b"x", b"g", b"L", b"K"))
    body = _record(b"path", b"a.jpg") if kind in (b"x", b"g") else b"a.jpg\0"
    return _member(kind, b"pax", body) * rng.choice((2, 100, 1200, 4000)) + data


def member_contents(rng: Random, data: bytes) -> bytes:
    """The contents of one member are mutated by its own format, and the tar is written anew."""
    from tests.fuzz.mutators import change_structure, structure_of

    def change(name: str, contents: bytes) -> bytes:
        structural = structure_of(name)
        if structural and rng.random() < 0.7:
            return change_structure(rng, contents, structural)
        return rng.choice(BYTES)(rng, contents)

    return _rewrite(rng, data, change)


def member_name(rng: Random, data: bytes) -> bytes:
    """A member is called otherwise, in another dialect of tar."""
    members = _read(data)
    place = rng.randrange(len(members))
    name, contents = members[place]
    stem, dot, suffix = name.rpartition(".")
    odd = odd_name(rng)
    members[place] = (
        rng.choice((f"{odd}{dot}{suffix}", f"{stem}{odd}{dot}{suffix}", f"../{name}", f"/{name}")),
        contents,
    )
    return _write(members, rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))


def order_of_members(rng: Random, data: bytes) -> bytes:
    """Members are doubled, missing, or in another order."""
    members = _read(data)
    change: Callable[[], Any] = rng.choice(
        (lambda: rng.shuffle(members), lambda: members.append(rng.choice(members)), lambda: members.pop())
    )
    change()
    return _write(members, tarfile.GNU_FORMAT)


def special_member(rng: Random, data: bytes) -> bytes:
    """A link, a device, a folder or a sparse file among the members."""
    kind = rng.choice((b"1", b"2", b"3", b"4", b"5", b"6", b"S", b"V", b"M", b"D"))
    at = rng.choice(_headers(data) or [0])
    return data[:at] + _member(kind, b"sa_1.jpg", b"", link=b"../../etc/passwd") + data[at:]


def no_end(rng: Random, data: bytes) -> bytes:
    """Without its end mark, or with something behind it."""
    return rng.choice((data.rstrip(b"\0"), data + data, data + b"x" * 511))


TAR: tuple[Mutator, ...] = (
    *(header_field,) * 4,
    *(member_contents,) * 4,
    *(pax_records, pax_records, many_headers, member_name, order_of_members, special_member, no_end),
)


def zip_field(rng: Random, data: bytes) -> bytes:
    """A field of a zip's directory, of a member's own header, or of the end record."""
    magic, places = rng.choice(
        (
            (
                b"PK\x01\x02",
                ((8, 2), (10, 2), (16, 4), (20, 4), (20, 4), (24, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4)),
            ),
            (b"PK\x03\x04", ((6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
            (b"PK\x05\x06", ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
        )
    )
    at = _find(rng, data, magic)
    place, width = rng.choice(places)
    value = rng.choice((rng.choice(EXTREMES), rng.randrange(1 << 8 * width))) % (1 << 8 * width)
    return data[: at + place] + value.to_bytes(width, "little") + data[at + place + width :]


def zip_contents(rng: Random, data: bytes) -> bytes:
    """The contents of one member are mutated by its own format, and the zip is written anew."""
    from tests.fuzz.mutators import change_structure, structure_of

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(info.file_size for info in archive.infolist()) > 4 << 20:
            raise ValueError("an earlier change made a bomb of it")
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = rng.randrange(len(members))
    name, contents = members[place]
    members[place] = (name, change_structure(rng, contents, structure_of(name) or BYTES))
    out = io.BytesIO()
    with zipfile.ZipFile(
        out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    ) as archive:
        for name, contents in members:
            archive.writestr(zipfile.ZipInfo(name), contents, archive.compression)
    return out.getvalue()


def zip_bomb(rng: Random, data: bytes) -> bytes:
    """A member that unfolds a thousandfold, or very many members, or an innocent one beside a huge one."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = archive.namelist()[0]
    return _bomb(name, rng.randrange(3))


@cache
def _bomb(name: str, kind: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if kind == 0:
            archive.writestr(zipfile.ZipInfo(f"big{name}"), b"[" + b"[]," * 60_000_000 + b"0]", zipfile.ZIP_DEFLATED)
        elif kind == 1:
            for number in range(20_000):
                archive.writestr(zipfile.ZipInfo(f"{number}{name}"), b"")
        else:
            archive.writestr(zipfile.ZipInfo(name), b"")
            archive.writestr(zipfile.ZipInfo(f"x/../{name}"), b"\0" * 100_000_000, zipfile.ZIP_DEFLATED)
    return out.getvalue()


ZIP: tuple[Mutator, ...] = (*(zip_field,) * 6, *(zip_contents,) * 4, zip_bomb)


def _headers(data: bytes) -> list[int]:
    found, at = [], 0
    while at + _BLOCK <= len(data) and data[at : at + 1] != b"\0" and len(found) < 10_000:
        found.append(at)
        try:
            size = tarfile.nti(data[at + 124 : at + 136])  # type: ignore[attr-defined]
        except tarfile.TarError:
            break
        at += _BLOCK * (1 + max(0, -(-size // _BLOCK)))
    return found


def _number(rng: Random, length: int) -> bytes:
    value = rng.choice((rng.choice(EXTREMES), rng.randrange(5000)))
    if rng.random() < 0.5 and value >= 0:
        return (b"%0*o" % (length - 1, value))[-(length - 1) :]
    return bytes([0x80 if value >= 0 else 0xFF]) + (value % (1 << 8 * (length - 1))).to_bytes(length - 1, "big")


def _summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _member(kind: bytes, name: bytes, body: bytes, link: bytes = b"") -> bytes:
    block = bytearray(_BLOCK)
    for field, value in {"name": name, "mode": b"0000644\0", "typeflag": kind, "linkname": link}.items():
        begin, length = _FIELDS[field]
        block[begin : begin + length] = value[:length].ljust(length, b"\0")
    block[124:136] = b"%011o\0" % len(body)
    block[257:265] = b"ustar\x0000"
    return _summed(block) + body + b"\0" * (-len(body) % _BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def _read(data: bytes) -> list[tuple[str, bytes]]:
    members = []
    # By hand: a size below zero, which an earlier change may have left, keeps `tarfile` busy for ever.
    for at in _headers(data):
        name, size = data[at : at + 100].rstrip(b"\0"), tarfile.nti(data[at + 124 : at + 136])  # type: ignore[attr-defined]
        if data[at + 156 : at + 157] in (b"0", b"\0") and 0 <= size <= len(data):
            members.append((os.fsdecode(name), data[at + _BLOCK : at + _BLOCK + size]))
    if not members:
        raise ValueError("no members are left")
    return members


def _write(members: list[tuple[str, bytes]], dialect: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=dialect) as tar:
        for name, contents in members:
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))
    return out.getvalue()


def _rewrite(rng: Random, data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    members = _read(data)
    place = rng.randrange(len(members))
    members[place] = (members[place][0], change(*members[place]))
    return _write(members, tarfile.GNU_FORMAT)


def _find(rng: Random, data: bytes, magic: bytes) -> int:
    places = []
    at = data.find(magic)
    while at >= 0:
        places.append(at)
        at = data.find(magic, at + 1)
    if not places:
        raise struct.error("no such record")
    return rng.choice(places)
