"""The sources on real files, where the folder of sample data lies beside the repository."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.make_media import make_video
from tests.shared_data import DATA, needs_data
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.scaling import scale_annotations
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.sav_masklets import AUTO_ID_OFFSET, Masklets, read_masklets
from trackmill.schemas.masks import mask_area

SETTINGS = ReadSettings(longest_side=256)

pytestmark = needs_data("images", "mot15", "mot17_mini", "raw_video", "sav")

FRAMES = {
    "01_dog.mp4": 289,
    "03_blocks.mp4": 292,
    "05_default_juggle.mp4": 247,
    "bedroom.mp4": 200,
    "bees.mp4": 277,
    "test_video_30s.mp4": 720,
}


def test_raw_videos_are_planned_exactly():
    items, _, unclaimed = claim_all([str(DATA / "raw_video")], "auto", SETTINGS)
    assert not unclaimed and {item.source for item in items} == {"videos"}
    for name, num_frames in FRAMES.items():
        clips = [item for item in items if item.uri.endswith(name)]
        stride = clips[0].stride
        assert stride == (4 if num_frames in (247, 277, 720) else 5)
        assert sum(item.frames for item in clips) == -(-num_frames // stride)
        assert max(item.frames for item in clips) - min(item.frames for item in clips) <= 1


@pytest.mark.parametrize("name", FRAMES)
def test_clips_of_a_raw_video_do_not_depend_on_the_order(name):
    settings = ReadSettings(longest_side=256, frames_per_clip=6)
    items, _, _ = claim_all([str(DATA / "raw_video" / name)], "videos", settings)
    source = open_source("videos", settings)
    last, first = source.read(items[-1]), source.read(items[0])
    assert len(first.frames) == items[0].frames and len(last.frames) == items[-1].frames
    assert first.num_source_frames == FRAMES[name]
    assert last.frames[-1].time_s == pytest.approx(last.frames[-1].index / first.fps, abs=1e-3)
    source.read(items[-2])
    for a, b in zip(last.frames, source.read(items[-1]).frames, strict=True):
        assert np.array_equal(a.image, b.image)


def test_photographs():
    items, _, _ = claim_all([str(DATA / "images")], "auto", SETTINGS)
    media = [open_source("images", SETTINGS).read(item) for item in items]
    assert len(media) == 5
    assert all(max(each.frames[0].image.shape) == 256 and each.frames[0].image.std() > 20 for each in media)


def test_sav_annotations_count_what_the_files_say():
    kinds = ("manual", "auto")
    files = [Masklets.fetch(str(DATA / "sav" / f"sav_000001_{kind}.json"), kind) for kind in kinds]
    assert [file.num_frames for file in files] == [121, 121] and [len(file.ids) for file in files] == [5, 9]
    areas: dict[int, list[int]] = {}
    for position in range(121):
        annotations = read_masklets(files, position, 848, 480)
        for identity, mask in zip(annotations.ids, annotations.masks, strict=True):
            areas.setdefault(identity, []).append(mask_area(mask))
    # `masklet_size_abs` of the files: mean area over the frames where the object is visible.
    assert np.mean(areas[0]) == pytest.approx(1434.8083333333)
    assert np.mean(areas[AUTO_ID_OFFSET + 1]) == pytest.approx(15666.743801652892)


def test_sav_video_of_the_same_size(tmp_path):
    shutil.copytree(DATA / "sav", tmp_path, dirs_exist_ok=True)
    make_video(tmp_path / "sav_000001.mp4", 483, 24, (848, 480), gop=12, quality=45, detail=8)
    settings = ReadSettings(longest_side=256)
    items, _, unclaimed = claim_all([str(tmp_path)], "auto", settings)
    assert not unclaimed and [item.frames for item in items] == [31, 30, 30, 30]
    media = open_source("sav", settings).read(items[3])
    assert [frame.index for frame in media.frames] == list(range(364, 483, 4))
    full = open_source("sav", settings.model_copy(update={"longest_side": 848})).read(items[3]).frames[0].annotations
    stored = media.frames[0].annotations
    assert repr(stored) == repr(scale_annotations(full, (848, 480), media.frames[0].image.shape[:2]))
    assert len(full.ids) >= len(stored.ids) > 3
    assert stored.boxes[:, 3].max() <= 256 and full.boxes[:, 3].max() > 256


def test_mot15_sequence():
    items, _, unclaimed = claim_all([str(DATA / "mot15" / "PETS09-S2L1")], "auto", ReadSettings(label_fps=30))
    assert not unclaimed and sum(item.frames for item in items) == 150
    source = open_source("mot", SETTINGS)
    frames = [frame for item in items for frame in source.read(item).frames]
    objects = sum(len(frame.annotations.ids) for frame in frames)
    ignored = sum(len(frame.annotations.ignore) for frame in frames)
    assert (objects, ignored) == (869, 4)
    assert len({identity for frame in frames for identity in frame.annotations.ids}) == 8


def test_mot17_sequence_with_fewer_files_than_it_promises():
    settings = ReadSettings(longest_side=256, label_fps=30)
    items, _, _ = claim_all([str(DATA / "mot17_mini")], "auto", settings)
    assert [item.frames for item in items] == [4]
    media = open_source("mot", settings).read(items[0])
    assert media.num_source_frames == 4 and media.fps == 30
    objects = sum(len(frame.annotations.ids) for frame in media.frames)
    ignored = sum(len(frame.annotations.ignore) for frame in media.frames)
    assert objects + ignored == 156 and objects > 40 and ignored > 20
