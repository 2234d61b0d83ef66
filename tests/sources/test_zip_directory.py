"""Directories of zips: good ones are read as Python's `zipfile` reads them, hostile ones end in a sentence."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from pathlib import Path

import pytest

from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.sources import zip_directory, zip_index
from trackmill.pipeline.sources.zip_directory import BadZip, ZipEntry, read_directory
from trackmill.pipeline.sources.zip_index import index_zip, read_member


def packed(members: dict[str, bytes], comment: bytes = b"", **options: object) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = comment
        for name, data in members.items():
            with archive.open(name, "w", **options) as handle:
                handle.write(data)
    return out.getvalue()


def entries(data: bytes) -> dict[str, ZipEntry]:
    return dict(read_directory(io.BytesIO(data)))


def edited(data: bytes, magic: bytes, place: int, field: bytes, which: int = 0) -> bytes:
    found = -1
    for _ in range(which + 1):
        found = data.index(magic, found + 1)
    return data[: found + place] + field + data[found + place + len(field) :]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("force_zip64", [False, True])
def test_a_good_zip_has_the_members_that_zipfile_finds(seed, force_zip64):
    draw = random.Random(seed)
    members = {}
    for number in range(30):
        stem = draw.choice(["a", "é", "日本", "d/e", "x" * 200]) + str(number)
        members[f"{stem}.jpg"] = draw.randbytes(draw.choice([0, 1, 5000]))
    data = packed(members, comment=draw.randbytes(draw.choice([0, 7, 60_000])), force_zip64=force_zip64)
    data = b"#!/bin/sh unpack\n" * draw.choice([0, 1]) + data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
    assert {name: (e.offset, e.packed, e.size, e.method, e.crc) for name, e in entries(data).items()} == {
        info.filename: (info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)
        for info in infos
    }


def test_long_numbers_come_from_the_extra_field():
    data = packed({"a.jpg": b"12345"})
    place = data.index(b"PK\1\2")
    entry = bytearray(data[place : data.index(b"PK\5\6")])
    size, offset = struct.unpack_from("<L", entry, 24)[0], struct.unpack_from("<L", entry, 42)[0]
    entry[24:28] = entry[42:46] = b"\xff" * 4
    extra = struct.pack("<2H2Q", 1, 16, size, offset)
    entry[30:32] = struct.pack("<H", len(extra))
    body = bytes(entry) + extra
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(body), place, 0)
    assert entries(data[:place] + body + end) == entries(data)


def test_a_directory_behind_a_zip64_end_is_found_behind_other_bytes_too():
    data = packed({"a.jpg": b"12345"})
    place, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    long_end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, end - place, place)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    short_end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    whole = data[:end] + long_end + locator + short_end
    assert entries(whole) == entries(data)
    assert entries(b"12345" + whole)["a.jpg"].offset == 5


GOOD = packed({"a.jpg": b"1" * 50, "b.jpg": bytes(range(256))})
DAMAGES = {
    "no end": (GOOD[:-30], "no directory at its end"),
    "nothing": (b"", "no directory at its end"),
    "longer than the file": (edited(GOOD, b"PK\5\6", 12, b"\xff\xff\xff\x7f"), "more than stand in front of its end"),
    "longer by one": (edited(GOOD, b"PK\5\6", 12, struct.pack("<L", 103)), "directory is damaged"),
    "an entry goes on": (edited(GOOD, b"PK\1\2", 30, b"\xff\xff", 1), "goes on behind its end"),
    "not an entry": (edited(GOOD, b"PK\1\2", 0, b"PK\1\3", 1), "directory is damaged"),
    "place behind the end": (edited(GOOD, b"PK\1\2", 42, b"\0\0\0\x70"), "'a.jpg' is said to lie outside"),
    "packed beyond the end": (edited(GOOD, b"PK\1\2", 20, b"\0\0\0\x70"), "'a.jpg' is said to lie outside"),
    "one over another": (edited(GOOD, b"PK\1\2", 42, bytes(4), 1), "members lie over each other"),
    "no long end": (GOOD[:-22] + struct.pack("<4sLQL", b"PK\6\7", 0, 1 << 63, 1) + GOOD[-22:], "not where it should"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_directory_that_cannot_be_true_is_refused(tmp_path, case):
    data, message = DAMAGES[case]
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(BadItem, match=f"not a zip, or one that is damaged or cut short: .*{message}"):
        index_zip(str(tmp_path / "a.zip"))


def test_limits_of_a_directory_are_named(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    path.write_bytes(GOOD)
    monkeypatch.setattr(zip_directory, "MAX_MEMBERS", 1)
    with pytest.raises(BadItem, match="more than 1 members; pack it into several"):
        index_zip(str(path))
    monkeypatch.setattr(zip_directory, "MAX_DIRECTORY_BYTES", 60)
    with pytest.raises(BadItem, match="directory has 102 bytes, more than 60"):
        index_zip(str(path))
    monkeypatch.undo()
    monkeypatch.setattr(zip_index, "MAX_NAMES_BYTES", 9)
    with pytest.raises(BadItem, match="names have more than 9 bytes"):
        index_zip(str(path))


def test_a_name_that_is_no_utf8_is_one_member_among_others(tmp_path: Path):
    data = packed({"é.jpg": b"1", "b.jpg": b"2"}).replace("é".encode(), b"\xe9\xe9")
    (tmp_path / "a.zip").write_bytes(data)
    assert set(index_zip(str(tmp_path / "a.zip"))) == {"\\xe9\\xe9.jpg", "b.jpg"}


@pytest.mark.parametrize("offset", [-1, -30, 7, 10**6])
def test_a_member_that_is_not_there_is_damage(tmp_path, offset):
    path = tmp_path / "a.zip"
    path.write_bytes(GOOD + bytes(10**6 + 100))
    entry = ZipEntry(offset, 5, 5, 0, 0, encrypted=False)
    with pytest.raises(BadItem, match=f"x: the zip is damaged: there is no member at byte {offset}"):
        read_member(str(path), entry, "x", 1000)


def test_a_member_whose_own_header_leads_behind_the_end_is_told_at_once(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    path.write_bytes(edited(GOOD, b"PK\3\4", 26, b"\xff\xff"))
    monkeypatch.setattr(
        "trackmill.pipeline.storage.retries.pause", lambda seconds: pytest.fail("nothing is tried again")
    )
    with pytest.raises(TruncatedMedia, match=r"x: 0 of \d+ packed bytes are there: the zip is damaged"):
        read_member(str(path), index_zip(str(path))["a.jpg"], "x", 1000)


def test_any_mutated_directory_is_read_or_refused():
    draw = random.Random(7)
    good = packed({"é.jpg": b"1" * 50, "b/c.jpg": bytes(range(256))}, force_zip64=True, comment=b"hello")
    begin = good.index(b"PK\1\2")
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(begin, len(data))] = draw.choice([0, 1, 0xFF, draw.randrange(256)])
        try:
            for entry in entries(bytes(data)).values():
                assert entry.offset >= 0 and entry.offset + entry.packed <= len(data)
        except BadZip as error:
            assert str(error)
