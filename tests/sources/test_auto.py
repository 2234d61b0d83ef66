"""Many inputs at once: which source takes what, and what is said when nothing can be taken."""

from __future__ import annotations

import pytest

from tests.make_media import (
    make_jpeg,
    make_mot,
    make_pictures,
    make_sa1b_folder,
    make_sa1b_tar,
    make_sav_train,
    make_sav_val,
    make_video,
)
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem, NothingToStore
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.clips import cut_clips, num_kept, stride_for
from trackmill.schemas.errors import InputError

SETTINGS = ReadSettings(frames_per_clip=4)


def test_auto_gives_each_file_to_the_source_that_knows_it(tmp_path):
    make_pictures(tmp_path / "pictures", 2)
    make_video(tmp_path / "video.mp4", 8)
    make_sa1b_folder(tmp_path / "sa1b", 2)
    make_sa1b_tar(tmp_path / "sa_000000.tar", 2)
    make_sav_train(tmp_path / "sav")
    make_sav_val(tmp_path / "sav_val")
    make_mot(tmp_path / "mot")
    (tmp_path / "notes.txt").write_text("nothing to see")
    items, listing, unclaimed = claim_all([str(tmp_path)], "auto", SETTINGS)
    counts = {name: sum(item.source == name for item in items) for name in ("images", "videos", "sa1b", "sav", "mot")}
    assert counts == {"images": 2, "videos": 1, "sa1b": 4, "sav": 5, "mot": 2}
    assert unclaimed == [str(tmp_path / "notes.txt")]
    assert [item.source_id for item in items] == sorted(item.source_id for item in items)
    assert [file.uri for file in listing] == sorted(str(p) for p in tmp_path.rglob("*") if p.is_file())


def test_overlapping_inputs_count_once(tmp_path):
    pictures = make_pictures(tmp_path, 3)
    urls = [str(tmp_path), f"{tmp_path}/", f"{tmp_path}/*.jpg", str(pictures[0]), f"file://{pictures[0]}"]
    items, listing, _ = claim_all(urls, "auto", SETTINGS)
    assert len(items) == len(listing) == 3


def test_named_source_claims_alone(tmp_path):
    make_sa1b_folder(tmp_path, 2)
    items, _, unclaimed = claim_all([str(tmp_path)], "images", SETTINGS)
    assert [item.source for item in items] == ["images"] * 2
    assert [uri.rsplit(".", 1)[1] for uri in unclaimed] == ["json", "json"]


@pytest.mark.parametrize("name", ["picture.jpg", "video.mp4", "sa_000001.tar"])
def test_one_file_that_is_not_there_does_not_stop_the_rest(tmp_path, name):
    make_jpeg(tmp_path / "good.jpg")
    items, _, _ = claim_all([str(tmp_path), str(tmp_path / name)], "auto", SETTINGS)
    assert len(items) == 2
    (missing,) = [item for item in items if name in item.source_id]
    with pytest.raises((OSError, BadItem), match=name):
        open_source(missing.source, SETTINGS).read(missing)


@pytest.mark.parametrize("name", ["folder", "*.jpg", "notes.txt"])
def test_input_that_does_not_exist(tmp_path, name):
    make_jpeg(tmp_path / "there" / "good.jpg")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        claim_all([str(tmp_path / "there"), str(tmp_path / name)], "auto", SETTINGS)


def test_nothing_to_mine_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"nothing to mine in .*looked for: sa_N\.jpg .*\.mp4.*\.jpg"):
        claim_all([str(tmp_path)], "auto", SETTINGS)
    with pytest.raises(ValueError, match="img1"):
        claim_all([str(tmp_path)], "mot", SETTINGS)
    with pytest.raises(InputError, match="no source is called 'kitti'; known: sa1b, sav"):
        claim_all([str(tmp_path)], "kitti", SETTINGS)
    with pytest.raises(InputError, match="did you mean 'images'"):
        claim_all([str(tmp_path)], "imges", SETTINGS)


def test_videos_that_cannot_be_probed_are_items(tmp_path):
    make_video(tmp_path / "good.mp4", 40, 24)
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 30)
    items, _, _ = claim_all([str(tmp_path)], "videos", SETTINGS)
    assert [item.frames for item in items] == [1, 4, 3, 3]
    with pytest.raises(BadItem, match=r"bad\.mp4: not a video"):
        open_source("videos", SETTINGS).read(items[0])


def test_video_that_could_only_not_be_probed_is_not_read_in_part(tmp_path):
    path = tmp_path / "late.mp4"
    path.write_bytes(b"")
    items, _, _ = claim_all([str(path)], "videos", SETTINGS)
    make_video(path, 40)
    with pytest.raises(NothingToStore, match="planned anew"):
        open_source("videos", SETTINGS).read(items[0])


def test_clip_past_the_end_of_an_estimated_length(tmp_path):
    path = make_video(tmp_path / "a.mkv", 40, 24)
    items, _, _ = claim_all([str(path)], "videos", SETTINGS)
    make_video(path, 22, 24)
    source = open_source("videos", SETTINGS)
    assert [frame.index for frame in source.read(items[1]).frames] == [16, 20]
    with pytest.raises(NothingToStore, match="22 frames"):
        source.read(items[2])


@pytest.mark.parametrize(
    ("kept", "limit", "lengths"),
    [(10, 4, [4, 3, 3]), (8, 4, [4, 4]), (1, 4, [1]), (9, 4, [3, 3, 3]), (5, 32, [5]), (0, 4, [])],
)
def test_clips_are_of_nearly_equal_length(kept, limit, lengths):
    clips = cut_clips(kept, limit)
    assert [clip.length for clip in clips] == lengths
    assert [clip.start for clip in clips] == [sum(lengths[:i]) for i in range(len(lengths))]


def test_stride():
    assert [stride_for(fps, 6) for fps in (30, 29.97, 24, 6, 5, 0)] == [5, 5, 4, 1, 1, 1]
    assert [num_kept(frames, 4) for frames in (0, 1, 4, 5, 483)] == [0, 1, 1, 2, 121]
