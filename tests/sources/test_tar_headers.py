"""Headers of tars: good ones are read as Python's `tarfile` reads them, hostile ones end in a sentence and in time."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest

from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.sources import tar_headers, tar_index
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.tar_headers import MAX_EXTENDED_BYTES
from trackmill.pipeline.sources.tar_index import index_tar
from trackmill.pipeline.sources.tar_members import TarIndex

ZEROS = bytes(1024)


def header(name: bytes, size: int, kind: bytes = b"0", field: bytes | None = None) -> bytes:
    """A ustar header; `field` in place of the octal size."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = (f"{size:011o}\0".encode() if field is None else field).ljust(12, b"\0")
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def base256(size: int) -> bytes:
    """A size in GNU's binary form."""
    if size >= 0:
        return b"\x80" + size.to_bytes(11, "big")
    return b"\xff" + (size + (1 << 88)).to_bytes(11, "big")


def member(name: bytes, data: bytes, kind: bytes = b"0") -> bytes:
    return header(name, len(data), kind) + data + bytes(-len(data) % 512)


def pax(*records: tuple[str, str]) -> bytes:
    text = b""
    for key, value in records:
        body = f" {key}={value}\n".encode()
        length = len(body) + 1
        while length != len(str(length)) + len(body):
            length = len(str(length)) + len(body)
        text += str(length).encode() + body
    return member(b"pax", text, b"x")


def index_of(tmp_path: Path, data: bytes) -> TarIndex:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    return index_tar(str(path))


def ranges(index: TarIndex) -> dict[str, tuple[int, int]]:
    return {name: (place.offset, place.length) for name, place in index.files.items()}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("seed", range(6))
def test_a_good_tar_has_the_members_that_tarfile_finds(tmp_path, form, seed):
    draw = random.Random(seed)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for number in range(40):
            folders = "/".join("d" * draw.randint(1, 25) for _ in range(draw.randint(0, 4)))
            stem = f"{number}-" + draw.choice(["a", "é", "日本", "a b", "x" * 60, "y" * 92])
            if form != tarfile.USTAR_FORMAT:
                stem += draw.choice(["", "z" * 150, "ü" * 40])
            info = tarfile.TarInfo(f"{folders}/{stem}.jpg" if folders else f"{stem}.jpg")
            info.size = draw.choice([0, 1, 511, 512, 513, 3000])
            info.mtime = draw.choice([0, 1, 1.5, 1 << 31]) if form == tarfile.PAX_FORMAT else 7
            info.type = draw.choice([tarfile.REGTYPE] * 4 + [tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
            info.linkname = "t" * draw.choice([3, 90]) if info.type == tarfile.SYMTYPE else ""
            info.size = info.size if info.isreg() else 0
            tar.addfile(info, io.BytesIO(draw.randbytes(info.size)))
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    index = index_tar(str(path))
    assert ranges(index) == {each.name: (each.offset_data, each.size) for each in members if each.isreg()}
    assert set(index.bad) == {each.name for each in members if each.issym()}


def test_sizes_in_binary_and_in_pax_records_are_read(tmp_path):
    data = header(b"a", 0, field=base256(5)) + b"12345".ljust(512, b"\0")
    data += pax(("path", "b" * 200), ("size", "7"), ("comment", "x=y\nz")) + header(b"short", 0) + bytes(512)
    data += member(b"c", b"123")
    index = index_of(tmp_path, data + ZEROS)
    assert ranges(index) == {"a": (512, 5), "b" * 200: (2560, 7), "c": (3584, 3)} and not index.bad


@pytest.mark.parametrize("size", [-1, -512, -1536, -(1 << 40), -(1 << 70), -(1 << 87)])
def test_a_negative_size_ends_the_walk_and_keeps_what_came_before(tmp_path, size):
    index = index_of(tmp_path, member(b"good.jpg", b"1") + header(b"bad.jpg", 0, field=base256(size)) + ZEROS)
    assert ranges(index) == {"good.jpg": (512, 1)}
    ((where, bad),) = index.bad.items()
    assert where == "@1024" and f"a size of {size}" in bad.reason and "what follows is lost" in bad.reason


@pytest.mark.parametrize("kind", [b"0", b"1", b"5", b"L", b"x", b"g", b"S", b"Z"])
def test_a_negative_size_is_refused_of_every_type_of_member(tmp_path, kind):
    index = index_of(tmp_path, header(b"a", 0, kind, base256(-1536)) + ZEROS)
    assert list(index.bad) == ["@0"] and not index.files


@pytest.mark.parametrize("field", [b"-0000000512", b"+0000000512", b"0_1", b"0o17", b"12345678", b"abc", b"\xfe" * 12])
def test_a_size_that_is_no_number_is_refused(tmp_path, field):
    index = index_of(tmp_path, header(b"a", 0, field=field) + ZEROS)
    assert "no number" in index.bad["@0"].reason


@pytest.mark.parametrize("size", [513, 1 << 40, (1 << 88) - 1])
def test_a_size_beyond_the_tar_is_a_member_that_is_cut_off(tmp_path, size):
    index = index_of(tmp_path, header(b"a.jpg", 0, field=base256(size)) + bytes(512))
    assert f"cut off: the tar ends after 512 of its {size} bytes" in index.bad["a.jpg"].reason
    assert index.bad["a.jpg"].truncated and not index.files


@pytest.mark.parametrize("made", [pax(("path", "name.jpg")), member(b"@", b"name.jpg\0", b"L")])
def test_thousands_of_extended_headers_in_a_row_are_walked(tmp_path, made):
    index = index_of(tmp_path, made * 5000 + member(b"short", b"123") + ZEROS)
    assert ranges(index) == {"name.jpg": (len(made) * 5000 + 512, 3)} and not index.bad


def test_an_extended_header_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "a.tar"
    with path.open("wb") as handle:
        handle.write(member(b"good.jpg", b"1") + header(b"pax", 3 << 30, b"x"))
        handle.truncate(4 << 30)
    index = index_tar(str(path))
    assert f"has {3 << 30} bytes; {MAX_EXTENDED_BYTES} are the most" in index.bad["@1024"].reason
    assert list(index.files) == ["good.jpg"]


@pytest.mark.parametrize(
    "records",
    [
        b"0 path=a\n",  # goes nowhere
        b"99999999999999999999 path=a\n",  # ends beyond the header
        b"8 path=a\n",  # ends too early
        b"-5 path=a\n",
        b"10 pathaa\n",  # no value
        b"11 size=-5\n",
        b"11 size=x5\n",
        b"path=a\n",
    ],
)
def test_a_broken_pax_record_is_damage(tmp_path, records):
    index = index_of(tmp_path, member(b"pax", records, b"x") + member(b"a", b"1") + ZEROS)
    assert "@0" in index.bad and not index.files


def test_sparse_files_are_refused_and_passed_over(tmp_path):
    old = bytearray(header(b"old.jpg", 512, b"S"))
    old[482] = 1
    old[148:156] = b" " * 8
    old[148:156] = f"{sum(old):06o}\0 ".encode()
    goes_on, last = bytearray(512), bytes(512)
    goes_on[504] = 1
    data = bytes(old) + bytes(goes_on) * 3000 + last + bytes(512)
    data += pax(("GNU.sparse.major", "1"), ("GNU.sparse.name", "new.jpg"), ("path", "new.jpg")) + member(b"n", b"1\n0")
    index = index_of(tmp_path, data + member(b"good.jpg", b"1") + ZEROS)
    assert set(index.bad) == {"old.jpg", "new.jpg"} and "sparse" in index.bad["old.jpg"].reason
    assert ranges(index) == {"good.jpg": (len(data) + 512, 1)}


def test_a_global_header_may_not_name_all_members(tmp_path):
    harmless = pax(("comment", "0123456789")).replace(b"0" * 11 + b"x", b"x")
    git = bytearray(harmless)
    git[156:157] = b"g"
    git[148:156] = b" " * 8
    git[148:156] = f"{sum(git[:512]):06o}\0 ".encode()
    assert list(index_of(tmp_path, bytes(git) + member(b"a", b"1") + ZEROS).files) == ["a"]
    renaming = bytearray(pax(("path", "b")))
    renaming[156:157] = b"g"
    renaming[148:156] = b" " * 8
    renaming[148:156] = f"{sum(renaming[:512]):06o}\0 ".encode()
    assert "global header" in index_of(tmp_path, bytes(renaming) + member(b"a", b"1") + ZEROS).bad["@0"].reason


def test_the_end_is_told_wherever_the_tar_stops(tmp_path):
    data = member(b"a.jpg", b"1" * 600) + member(b"._b.jpg", b"2" * 600) + ZEROS
    for length in range(0, len(data) - 1024 + 512, 64):
        index = index_of(tmp_path, data[:length])
        assert len(index.bad) == 1 and next(iter(index.bad.values())).truncated, length
    assert not index_of(tmp_path, data).bad


def test_a_very_long_name_is_that_members_fault_alone(tmp_path):
    long = pax(("path", "n" * 5000)) + member(b"short", b"1")
    index = index_of(tmp_path, long + member(b"a.jpg", b"1") + ZEROS)
    assert list(index.files) == ["a.jpg"]
    assert [bad.reason for bad in index.bad.values()] == ["has a name of more than 4096 bytes"]


def test_of_two_members_with_one_name_the_later_counts(tmp_path):
    file, link = member(b"a.jpg", b"1"), header(b"a.jpg", 0, b"2")
    assert ranges(index_of(tmp_path, link + file + ZEROS)) == {"a.jpg": (1024, 1)}
    index = index_of(tmp_path, file + link + ZEROS)
    assert not index.files and list(index.bad) == ["a.jpg"]
    for data in (link + file, file + link, file + file):
        index_of(tmp_path, data + ZEROS)
        (item,) = claim_all([str(tmp_path / "a.tar")], "webdataset", ReadSettings())[0]
        assert item.source_id.endswith("a.tar#a.jpg"), data


def test_a_member_without_a_name_is_told_of(tmp_path):
    index = index_of(tmp_path, member(b"", b"1") + member(b"a.jpg", b"1") + ZEROS)
    assert list(index.files) == ["a.jpg"] and "no name" in index.bad["@0"].reason
    assert len(claim_all([str(tmp_path / "a.tar")], "webdataset", ReadSettings())[0]) == 1


@pytest.mark.parametrize("kind", [b"2", b"0"])
def test_a_video_that_is_bad_beside_good_annotations_is_one_item(tmp_path, kind):
    size = 0 if kind == b"2" else 1 << 40
    data = member(b"sav_000001_manual.json", b"{}") + header(b"sav_000001.mp4", 0, kind, base256(size))
    (tmp_path / "sav_000.tar").write_bytes(data + ZEROS)
    (item,) = claim_all([str(tmp_path / "sav_000.tar")], "sav", ReadSettings())[0]
    assert "sav_000001.mp4" in item.source_id


def test_a_tar_of_too_many_members_says_so(tmp_path, monkeypatch):
    data = b"".join(member(f"{number}.jpg".encode(), b"") for number in range(11)) + ZEROS
    monkeypatch.setattr(tar_index, "MAX_MEMBERS", 10)
    with pytest.raises(BadItem, match="more than 10 members; pack it into several"):
        index_of(tmp_path, data)
    monkeypatch.setattr(tar_index, "MAX_MEMBERS", 11)
    monkeypatch.setattr(tar_index, "MAX_NAMES_BYTES", 50)
    with pytest.raises(BadItem, match="more than 50 bytes in its members' names"):
        index_of(tmp_path, data)


def test_any_mutated_header_gives_an_index_or_says_what_is_wrong(tmp_path):
    good = pax(("path", "é" * 60)) + member(b"a", b"1") + member(b"@", b"long.jpg\0", b"L") + member(b"b", b"2" * 700)
    draw = random.Random(3)
    for _ in range(400):
        data = bytearray(good + ZEROS)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        if draw.random() < 0.7:  # so that more than the checksum is tested
            for place in range(0, len(data), 512):
                data[place + 148 : place + 156] = b" " * 8
                data[place + 148 : place + 156] = f"{sum(data[place : place + 512]):06o}\0 ".encode()
        handle = io.BytesIO(data)
        try:
            for each in tar_headers.walk_headers(handle, len(data)):
                assert 0 <= each.offset <= len(data) and each.size >= 0 and each.end > each.offset - 512
        except tar_headers.DamagedTar as error:
            assert 0 <= error.offset <= len(data)
