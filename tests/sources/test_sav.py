"""SA-V: frame t of the annotation lies on frame 4t of the video, in both published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_media import make_sav_train, make_sav_val, make_scene, make_video
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem, MissingAnnotation, NothingToStore, TruncatedMedia
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.sav_masklets import AUTO_ID_OFFSET
from trackmill.schemas.masks import paste_mask

SETTINGS = ReadSettings(frames_per_clip=4)


def read_all(folder: Path, name: str = "sav"):
    items, _, _ = claim_all([str(folder)], name, SETTINGS)
    source = open_source("sav", SETTINGS)
    return [source.read(item) for item in items]


def change(path: Path, edit) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_clips_of_a_training_video(tmp_path):
    make_sav_train(tmp_path, num_frames=41)
    clips = read_all(tmp_path)
    indices = [[frame.index for frame in clip.frames] for clip in clips]
    assert indices == [[0, 4, 8, 12], [16, 20, 24, 28], [32, 36, 40]]
    assert {clip.fps for clip in clips} == {24} and {clip.num_source_frames for clip in clips} == {41}
    assert all(clip.annotated and clip.license == "CC BY 4.0" for clip in clips)
    assert clips[1].frames[0].time_s == pytest.approx(16 / 24)
    for clip in clips:
        for frame in clip.frames:
            masks = make_scene(64, 96, seed=0, step=frame.index)[1]
            numbers = [1, 2] if frame.index == 4 else [0, 1, 2]
            assert frame.annotations.ids == [AUTO_ID_OFFSET if n == 2 else n for n in numbers]
            assert frame.annotations.scores == [0.95 if n == 2 else 1.0 for n in numbers]
            for crop, n in zip(frame.annotations.masks, numbers, strict=True):
                assert np.array_equal(paste_mask(crop, 64, 96), masks[n])


def test_clips_share_the_decoded_video_and_the_parsed_json(tmp_path, monkeypatch):
    import trackmill.pipeline.sources.sav_masklets as sav_masklets

    make_sav_train(tmp_path, num_frames=41)
    parsed = []
    fetch = sav_masklets.fetch_json
    monkeypatch.setattr(sav_masklets, "fetch_json", lambda uri: parsed.append(uri) or fetch(uri))
    items, _, _ = claim_all([str(tmp_path)], "sav", SETTINGS)
    assert parsed == []
    source = open_source("sav", SETTINGS)
    for item in items:
        source.read(item)
    assert len(parsed) == 2
    assert source._cache.get(items[0].uri).reader.decoded == 41


@pytest.mark.parametrize(("missing", "ids"), [("auto", {0, 1}), ("manual", {AUTO_ID_OFFSET})])
def test_one_annotation_file_is_enough(tmp_path, missing, ids):
    make_sav_train(tmp_path)
    (tmp_path / f"sav_000001_{missing}.json").unlink()
    assert {each for clip in read_all(tmp_path, "auto") for f in clip.frames for each in f.annotations.ids} == ids


def test_no_annotation_file(tmp_path):
    make_video(tmp_path / "sav_000001.mp4")
    with pytest.raises(MissingAnnotation, match="--source videos"):
        read_all(tmp_path)
    assert claim_all([str(tmp_path)], "auto", SETTINGS)[0][0].source == "videos"


def test_no_video(tmp_path):
    make_sav_train(tmp_path).unlink()
    with pytest.raises(BadItem, match=r"sav_000001\.mp4.*video is missing"):
        read_all(tmp_path, "auto")


def test_annotations_that_end_before_the_video(tmp_path):
    make_sav_train(tmp_path, num_frames=41)
    for kind in ("manual", "auto"):
        change(tmp_path / f"sav_000001_{kind}.json", lambda document: document["masklet"].__delitem__(slice(6, None)))
    change(
        tmp_path / "sav_000001_auto.json",
        lambda document: document["masklet_stability_score"].__delitem__(slice(6, None)),
    )
    items, _, _ = claim_all([str(tmp_path)], "sav", SETTINGS)
    source = open_source("sav", SETTINGS)
    assert [len(source.read(item).frames) for item in items[:2]] == [4, 2]
    with pytest.raises(NothingToStore, match="only 6 frames"):
        source.read(items[2])


def test_video_that_ends_before_its_annotations(tmp_path):
    make_sav_train(tmp_path, num_frames=41)
    path = make_video(tmp_path / "sav_000001.mp4", 41, faststart=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    items, _, _ = claim_all([str(tmp_path)], "sav", SETTINGS)
    source = open_source("sav", SETTINGS)
    assert len(source.read(items[0]).frames) == 4
    with pytest.raises(TruncatedMedia, match=r"sav_000001\.mp4 ends early: frame \d+ of 41"):
        source.read(items[2])


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda document: document.pop("masklet"), "'masklet' is missing"),
        (lambda document: document.pop("masklet_id"), "'masklet_id' is missing"),
        (lambda document: document.update(masklet_id=[0, "one"]), "'masklet_id': expected a whole number"),
        (lambda document: document.update(masklet_id=[3, 3]), "id twice"),
        (lambda document: document["masklet"][2].pop(), "annotated frame 2: 'masklet' should list 2 objects"),
        (lambda document: document["masklet"].__setitem__(1, None), "annotated frame 1"),
        (lambda document: document["masklet"][1].__setitem__(0, None), "annotated frame 1, object 0"),
        (lambda document: document["masklet"][3][1].update(size=[96, 64]), "object 1: the mask was made for 96 x 64"),
        (lambda document: document.update(masklet_stability_score=[[1.0]]), "'masklet_stability_score' has 1 frames"),
    ],
)
def test_broken_masklets_are_named(tmp_path, edit, text):
    make_sav_train(tmp_path)
    change(tmp_path / "sav_000001_manual.json", edit)
    with pytest.raises(BadItem, match=rf"sav_000001_manual\.json.*{text}"):
        read_all(tmp_path)


def test_numbers_may_be_floats(tmp_path):
    make_sav_train(tmp_path)
    change(tmp_path / "sav_000001_manual.json", lambda document: document.update(masklet_id=[0.0, 1.0]))
    change(
        tmp_path / "sav_000001_manual.json",
        lambda document: [rle.update(size=[64.0, 96.0]) for frame in document["masklet"] for rle in frame],
    )
    assert read_all(tmp_path)[0].frames[0].annotations.ids == [0, 1, AUTO_ID_OFFSET]


def test_validation_layout(tmp_path):
    make_sav_val(tmp_path, num_frames=21)
    clips = read_all(tmp_path, "auto")
    assert [[frame.index for frame in clip.frames] for clip in clips] == [[0, 4, 8], [12, 16, 20]]
    assert [[frame.annotations.ids for frame in clip.frames] for clip in clips] == [[[0, 1], [0, 1], [0]], [[0]] * 3]
    masks = make_scene(48, 64, seed=5, step=4, count=2)[1]
    found = clips[0].frames[1].annotations.masks
    assert all(np.array_equal(paste_mask(crop, 48, 64), mask) for crop, mask in zip(found, masks, strict=True))
    assert clips[0].num_source_frames == 21 and clips[0].fps == 24


def test_validation_layout_without_a_frame(tmp_path):
    frames = make_sav_val(tmp_path)
    (frames / "00008.jpg").unlink()
    with pytest.raises(BadItem, match="frame 8 is missing"):
        read_all(tmp_path)


def test_validation_layout_without_any_frame(tmp_path):
    for frame in make_sav_val(tmp_path).iterdir():
        frame.unlink()
    with pytest.raises(BadItem, match="folder of frames is missing"):
        read_all(tmp_path)


def test_validation_layout_without_masks(tmp_path):
    frames = make_sav_val(tmp_path)
    with pytest.raises(MissingAnnotation, match="no folder of masks"):
        read_all(frames.parent)
    assert {item.source for item in claim_all([str(frames.parent)], "auto", SETTINGS)[0]} == {"frames"}


def test_validation_mask_of_another_size(tmp_path):
    make_sav_val(tmp_path)
    path = tmp_path / "Annotations_6fps" / "sav_000777" / "000" / "00004.png"
    Image.fromarray(np.ones((10, 10), bool)).save(path)
    with pytest.raises(BadItem, match=r"000/00004\.png: is 10 x 10, its frame 48 x 64"):
        read_all(tmp_path)


def test_a_video_named_in_capitals_has_its_annotations(tmp_path):
    make_sav_train(tmp_path).rename(tmp_path / "sav_000001.MP4")
    clips = read_all(tmp_path, "auto")
    assert clips[0].frames[0].annotations.ids == [0, 1, AUTO_ID_OFFSET]


@pytest.mark.parametrize("mode", ["LA", "RGBA", "transparent colour", "drawn in alpha"])
def test_masks_saved_with_transparency_are_their_object_only(tmp_path, mode):
    make_sav_val(tmp_path, num_frames=1, count=1)
    path = tmp_path / "Annotations_6fps" / "sav_000777" / "000" / "00000.png"
    mask = make_scene(48, 64, seed=5, count=1)[1][0]
    level = mask.astype(np.uint8) * 255
    opaque = np.full_like(level, 255)
    planes = {
        "LA": [level, opaque],
        "RGBA": [level] * 3 + [opaque],
        "transparent colour": [opaque] * 3 + [level],
        "drawn in alpha": [opaque * 0] * 3 + [level],
    }[mode]
    Image.fromarray(np.stack(planes, axis=2)).save(path)
    (crop,) = read_all(tmp_path)[0].frames[0].annotations.masks
    assert np.array_equal(paste_mask(crop, 48, 64), mask)


def test_json_of_another_video_is_refused(tmp_path):
    make_sav_train(tmp_path)
    change(tmp_path / "sav_000001_auto.json", lambda document: document.update(video_id="sav_000002"))
    with pytest.raises(BadItem, match=r"sav_000001_auto\.json: belongs to another video: video_id is 'sav_000002'"):
        read_all(tmp_path)
