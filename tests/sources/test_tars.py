"""Tars as people have them: compressed, packed on a Mac, without anything of ours, and SA-V's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.make_media import make_pictures, make_sa1b_folder, make_sav_train, make_video, pack_tar
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem, MissingAnnotation
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.schemas.media import Media

SETTINGS = ReadSettings(frames_per_clip=4)


def read_all(url: Path | str, source: str) -> list[Media]:
    items, _, _ = claim_all([str(url)], source, SETTINGS)
    reader = open_source(items[0].source, SETTINGS)
    return [reader.read(item) for item in items]


def only_error(url: Path, source: str = "auto") -> str:
    items, _, unclaimed = claim_all([str(url)], source, SETTINGS)
    assert len(items) == 1 and not unclaimed
    with pytest.raises(BadItem) as caught:
        open_source(items[0].source, SETTINGS).read(items[0])
    return str(caught.value)


@pytest.mark.parametrize("name", ["sa_000000.tar.gz", "sa_000000.tgz", "sa_000000.tar"])
def test_compressed_tar_says_what_to_do(tmp_path, name):
    make_sa1b_folder(tmp_path / "made", 1)
    path = pack_tar(tmp_path / name, tmp_path / "made", mode="w:gz")
    text = only_error(path)
    assert name in text and "compressed with gzip" in text and "`gunzip`" in text and "damaged" not in text


@pytest.mark.parametrize(("mode", "program"), [("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_other_compression_is_named(tmp_path, mode, program):
    make_sav_train(tmp_path / "made", num_frames=5)
    assert f"compressed with {program}" in only_error(pack_tar(tmp_path / "sav_000.tar", tmp_path / "made", mode=mode))


def test_plain_tar_that_is_called_compressed_is_read(tmp_path):
    make_sa1b_folder(tmp_path / "made", 2)
    assert len(read_all(pack_tar(tmp_path / "sa_000000.tar.gz", tmp_path / "made"), "auto")) == 2


def test_tar_without_a_pair_is_an_item_that_says_so(tmp_path):
    make_pictures(tmp_path / "made", 1)
    (tmp_path / "made" / "picture_0.jpg").rename(tmp_path / "made" / "a.png")
    assert "holds no pair of NAME.jpg and NAME.json, but 1 files such as a.png" in only_error(
        pack_tar(tmp_path / "sa_000000.tar", tmp_path / "made")
    )
    (tmp_path / "nothing").mkdir()
    assert "but no file at all" in only_error(pack_tar(tmp_path / "sa_000001.tar", tmp_path / "nothing"))
    assert "holds no MP4 among its 1 files" in only_error(pack_tar(tmp_path / "sav_000.tar", tmp_path / "made"))


def test_what_a_mac_adds_is_passed_over(tmp_path):
    made = make_sa1b_folder(tmp_path / "made", 1)[0]
    for name in ("._sa_1.jpg", "._sa_1.json", "__MACOSX/sa_1.jpg", ".DS_Store"):
        (made.parent / name).parent.mkdir(exist_ok=True)
        (made.parent / name).write_bytes(b"Mac OS X")
    (media,) = read_all(pack_tar(tmp_path / "sa_000000.tar", made.parent), "auto")
    assert media.frames[0].annotations.ids == [1000, 1001, 1002]


@pytest.mark.parametrize("remote", [False, True])
def test_sav_tar_gives_what_its_files_give(tmp_path, to_memory, remote):
    make_sav_train(tmp_path / "made" / "sav_train" / "sav_000", num_frames=41)
    (tmp_path / "tars").mkdir()
    path = pack_tar(tmp_path / "tars" / "sav_000.tar", tmp_path / "made")
    packed = read_all(to_memory(path.parent) if remote else path, "auto")
    loose = read_all(tmp_path / "made", "auto")
    assert len(packed) == len(loose) == 3
    for one, other in zip(packed, loose, strict=True):
        assert one.sha256 == other.sha256 and one.num_bytes == other.num_bytes
        assert [frame.index for frame in one.frames] == [frame.index for frame in other.frames]
        for a, b in zip(one.frames, other.frames, strict=True):
            assert np.array_equal(a.image, b.image) and a.annotations.masks == b.annotations.masks


def test_items_of_a_sav_tar_are_byte_ranges_that_name_their_member(tmp_path):
    video = make_sav_train(tmp_path / "made", num_frames=5)
    path = pack_tar(tmp_path / "sav_000.tar", tmp_path / "made")
    (item,) = claim_all([str(path)], "auto", SETTINGS)[0]
    assert item.source_id == f"{path}#sav_000001.mp4#c000" and item.uri == str(path)
    assert path.read_bytes()[item.offset : item.offset + item.length] == video.read_bytes()
    assert item.key.startswith("sav-sav_000001-c000-")


def test_what_is_wrong_in_a_sav_tar_is_said_of_the_member(tmp_path):
    make_sav_train(tmp_path / "made", num_frames=5)
    make_video(tmp_path / "made" / "sav_000002.mp4", 5)
    (tmp_path / "made" / "sav_000001_auto.json").write_text("{")
    path = pack_tar(tmp_path / "sav_000.tar", tmp_path / "made")
    first, second = claim_all([str(path)], "auto", SETTINGS)[0]
    source = open_source("sav", SETTINGS)
    with pytest.raises(BadItem, match=r"sav_000\.tar#sav_000001_auto\.json: not valid JSON"):
        source.read(first)
    with pytest.raises(MissingAnnotation, match=r"sav_000\.tar#sav_000002\.mp4: neither .* unpack the tar and mine"):
        source.read(second)


def test_cut_sav_tar_names_the_video_that_is_cut(tmp_path):
    make_sav_train(tmp_path / "made", num_frames=41)
    path = pack_tar(tmp_path / "sav_000.tar", tmp_path / "made")
    path.write_bytes(path.read_bytes()[: (tmp_path / "made" / "sav_000001.mp4").stat().st_size // 2])
    assert "sav_000001.mp4" in only_error(path) and "cut off" in only_error(path)


def test_pictures_of_a_tar_without_json_say_what_takes_them(tmp_path):
    make_pictures(tmp_path / "made", 1)
    text = only_error(pack_tar(tmp_path / "sa_000000.tar", tmp_path / "made"))
    assert text.endswith(
        "sa_000000.tar#picture_0.jpg: no JSON lies beside the picture; mine it without annotations by "
        "--source webdataset"
    )
