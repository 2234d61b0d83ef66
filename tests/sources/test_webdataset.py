"""Pictures inside tars and zips: which members, their pixels, and what is said of those that cannot be read."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.make_media import jpeg_bytes, make_jpeg, make_pictures, make_scene, pack_tar
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.schemas.errors import InputError
from trackmill.schemas.media import Media

SETTINGS = ReadSettings()


def read_all(url: Path | str) -> dict[str, Media | str]:
    """By the member's name, the picture or why there is none."""
    items, _, _ = claim_all([str(url)], "webdataset", SETTINGS)
    source = open_source("webdataset", SETTINGS)
    found: dict[str, Media | str] = {}
    for item in items:
        name = item.source_id.rpartition("#")[2]
        try:
            found[name] = source.read(item)
        except BadItem as error:
            assert item.source_id in str(error)
            found[name] = f"{type(error).__name__}: {error}"
    return found


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def picture(seed: int) -> bytes:
    return jpeg_bytes(make_scene(48, 64, seed)[0])


def test_pictures_of_a_shard_and_nothing_else(tmp_path):
    made = tmp_path / "made"
    make_jpeg(made / "000" / "a.jpg", seed=1)
    make_jpeg(made / "000" / "b.png", seed=2)
    for name in ("000/a.json", "000/a.cls", "000/._a.jpg"):
        (made / name).write_bytes(b"{}")
    found = read_all(pack_tar(tmp_path / "shard.tar", made))
    assert sorted(found) == ["000/a.jpg", "000/b.png"]
    for name, media in found.items():
        assert media.sha256 == hashlib.sha256((made / name).read_bytes()).hexdigest() and media.kind == "image"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("remote", [False, True])
def test_pictures_of_a_zip(tmp_path, to_memory, method, remote):
    members = {"in/a.jpg": picture(1), "in/b.webp": picture(2), "__MACOSX/in/._a.jpg": b"x", "notes.txt": b"x" * 3000}
    (tmp_path / "zips").mkdir()
    make_zip(tmp_path / "zips" / "all.zip", members, method)
    found = read_all(to_memory(tmp_path / "zips") if remote else tmp_path / "zips")
    assert {name: media.sha256 for name, media in found.items()} == {
        name: hashlib.sha256(members[name]).hexdigest() for name in ("in/a.jpg", "in/b.webp")
    }


def test_damage_in_a_zip_is_one_member(tmp_path):
    data = picture(1)
    path = make_zip(tmp_path / "a.zip", {"a.jpg": data, "b.jpg": picture(2)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(data) + 50] ^= 1
    path.write_bytes(content)
    found = read_all(path)
    assert "another checksum" in found["a.jpg"] and isinstance(found["b.jpg"], Media)


def test_zip_that_is_cut_or_none_is_one_item(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": picture(1)})
    path.write_bytes(path.read_bytes()[:300])
    (text,) = read_all(path).values()
    assert "not a zip, or one that is damaged or cut short" in text


def test_members_that_cannot_be_unpacked_say_why(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": picture(1)}, zipfile.ZIP_LZMA)
    assert "packed by method 14; only stored and deflated" in read_all(path)["a.jpg"]
    path = make_zip(tmp_path / "b.zip", {"a.jpg": picture(1)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted" in read_all(path)["a.jpg"]


def test_a_member_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path):
    """A zip bomb: the size in the directory is the most that is made."""
    path = make_zip(tmp_path / "a.zip", {"a.jpg": bytes(10_000_000)})
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24
    content[place : place + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    assert "another checksum" in read_all(path)["a.jpg"]
    items, _, _ = claim_all([str(make_zip(tmp_path / "b.zip", {"a.jpg": bytes(5000)}))], "webdataset", SETTINGS)
    with pytest.raises(BadItem, match=r"read\.max_item_bytes"):
        open_source("webdataset", ReadSettings(max_item_bytes=4000)).read(items[0])


def test_tar_or_zip_without_a_picture_says_so(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.json").write_text("{}")
    found = read_all(pack_tar(tmp_path / "a.tar", tmp_path / "made"))
    assert "the tar holds no picture, but 1 files such as a.json" in next(iter(found.values()))
    found = read_all(make_zip(tmp_path / "a.zip", {}))
    assert "the zip holds no picture, but no file at all" in next(iter(found.values()))


def test_cut_and_compressed_shards(tmp_path):
    first, *_ = make_pictures(tmp_path / "made", 3)
    path = pack_tar(tmp_path / "a.tar", tmp_path / "made")
    path.write_bytes(path.read_bytes()[: first.stat().st_size + 2048])
    found = read_all(path)
    assert isinstance(found["picture_0.jpg"], Media)
    assert found["picture_1.jpg"].startswith(TruncatedMedia.__name__)
    (text,) = read_all(pack_tar(tmp_path / "a.tar.gz", tmp_path / "made", mode="w:gz")).values()
    assert "compressed with gzip" in text


def test_auto_leaves_tars_alone_and_says_what_reads_them(tmp_path):
    make_pictures(tmp_path / "made", 1)
    pack_tar(tmp_path / "a.tar", tmp_path / "made")
    with pytest.raises(InputError, match="--source webdataset reads pictures inside tars and zips"):
        claim_all([str(tmp_path / "a.tar")], "auto", SETTINGS)
    with pytest.raises(FileNotFoundError):
        claim_all([str(tmp_path / "missing.zip")], "auto", SETTINGS)
