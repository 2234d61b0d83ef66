"""Annotations that are too large, too many or out of range cost their item, with a sentence that is short itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.make_media import make_mot, make_sa1b_folder, make_sav_train
from tests.sources.claiming import claim_all
from trackmill.pipeline.media import fetching
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import fetch_json, shown, whole_number
from trackmill.pipeline.media.rle import crop_rle
from trackmill.pipeline.sources import mot, mot_rows, open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.check import BadMedia, check_media
from trackmill.pipeline.sources.mot_rows import read_ground_truth
from trackmill.pipeline.sources.sa1b_annotations import check_picture, sa1b_annotations
from trackmill.schemas.masks import MAX_RUNS, decode_counts, format_counts, mask_runs, parse_counts
from trackmill.schemas.media import Annotations, Frame, Media
from trackmill.schemas.sample import Objects

SETTINGS = ReadSettings()


def annotation(**fields: Any) -> dict[str, Any]:
    return {"annotations": [{"id": 1, "bbox": [0, 0, 2, 2], **fields}]}


def said(document: dict[str, Any]) -> str:
    with pytest.raises(BadItem) as caught:
        sa1b_annotations(document, 4, 4, "x.json")
    text = str(caught.value)
    assert text.startswith("x.json: ") and len(text) < 400
    return text


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "18446744073709551615", "-9223372036854775809", "1e19", "1e300"]
)
def test_an_id_that_does_not_fit_in_64_bits_is_refused(text):
    assert "stored in 64 bits" in said(orjson.loads(json.dumps(annotation()).replace('"id": 1', f'"id": {text}')))


@pytest.mark.parametrize(
    ("value", "wanted"), [(2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (848.0, 848), (2.0**53, 2**53)]
)
def test_an_id_that_fits_is_kept_exactly(value, wanted):
    assert sa1b_annotations(annotation(id=value), 4, 4, "x").ids == [wanted]
    assert orjson.loads(orjson.dumps(wanted)) == np.int64(wanted)


@pytest.mark.parametrize("value", [2.0**53 + 2, -(2.0**60), 1.5, True, None, "7", [1] * 1_000_000])
def test_a_number_that_would_become_another_is_refused(value):
    with pytest.raises(BadItem) as caught:
        whole_number(value, "x")
    assert len(str(caught.value)) < 300


def test_what_is_wrong_is_shown_in_short():
    assert len(shown(["x" * 1_000_000] * 1_000_000)) < 500 and shown([1, 2]) == "[1, 2]"
    assert "found [0, 0, 0, 0, 0, 0, ...]" in said(annotation(bbox=[0] * 1_000_000))
    assert "[height, width]" in said(annotation(segmentation={"size": [1] * 1_000_000, "counts": ""}))
    with pytest.raises(BadItem, match="belongs to another picture") as caught:
        check_picture({"image": {"file_name": "x" * 1_000_000}}, "a.jpg", 4, 4, "x")
    assert len(str(caught.value)) < 300
    with pytest.raises(BadItem, match="belongs to another picture"):
        check_picture({"image": {"image_id": "9" * 10_000}}, "sa_1.jpg", 4, 4, "x")


def test_too_many_annotations_are_refused():
    document = {"annotations": [{"id": i, "bbox": [0, 0, 2, 2]} for i in range(10_001)]}
    assert "10001 annotations, more than the 10000 that a picture may have" in said(document)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("1" * 97, "run lengths of 97 characters, more than 16 pixels can need"),
        ([0] * 19, "19 runs, more than 16 pixels can have"),
        ([2**63], "negative or longer than the 16 pixels"),
        ([-1, 17], "negative or longer than the 16 pixels"),
        ("é" * 5, "outside COCO's alphabet"),
        ("☃", "outside COCO's alphabet"),
    ],
)
def test_counts_are_measured_against_the_frame(counts, message):
    with pytest.raises(BadItem, match=message):
        crop_rle({"size": [4, 4], "counts": counts}, 4, 4, "x")


@pytest.mark.parametrize("mask", [np.indices((64, 64)).sum(0) % 2, np.zeros((64, 64)), np.eye(64), np.ones((1, 1))])
def test_the_text_of_a_real_mask_is_never_too_long(mask):
    runs = mask_runs(mask.astype(bool))
    assert np.array_equal(parse_counts(format_counts(runs), mask.size), runs)
    assert np.array_equal(decode_counts(format_counts(runs), *mask.shape), mask)


def test_numbers_of_every_length_are_parsed():
    runs = np.cumsum(np.array([0, 15, 16, 511, 512, 2**14, 2**19, 2**24, 2**31, 3, 0, 2**30]))
    assert np.array_equal(parse_counts(format_counts(runs)), runs) and len(runs) < MAX_RUNS


def test_deep_json_and_large_json_end_in_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a":' * 100_000)
    with pytest.raises(BadItem, match=r"a\.json: not valid JSON"):
        fetch_json(str(path))
    monkeypatch.setattr(fetching, "MAX_ANNOTATION_BYTES", 100)
    with pytest.raises(BadItem, match="500000 bytes, more than the limit of 100 for annotations"):
        fetch_json(str(path))


def test_json_of_windows_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert fetch_json(str(tmp_path / "a.json")) == {"a": 1}


@pytest.mark.parametrize(
    ("ids", "message"),
    [(list(range(10_001)), "10001 masklets"), ([2**63 - 1], "stored in 64 bits"), ([2**64 - 1], "stored in 64 bits")],
)
def test_masklets_too_many_or_with_ids_too_large_are_refused(tmp_path, ids, message):
    video = make_sav_train(tmp_path, num_frames=5)
    path = Path(str(video).replace(".mp4", "_auto.json"))
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "masklet_id": ids}))
    (item,) = claim_all([str(tmp_path)], "auto", SETTINGS)[0]
    with pytest.raises(BadItem, match=message):
        open_source("sav", SETTINGS).read(item)


@pytest.mark.parametrize("line", ["1,9223372036854775808,0,0,1,1,1", "1e17,1,0,0,1,1,1", "1,-1e300,0,0,1,1,1"])
def test_rows_with_numbers_that_cannot_be_kept_are_refused(tmp_path, line):
    (tmp_path / "gt.txt").write_text(f"1,1,0,0,1,1,1\n{line}\n")
    with pytest.raises(BadItem, match=r"gt\.txt: line 2: (id|frame): .* stored in 64 bits"):
        read_ground_truth(str(tmp_path / "gt.txt"))


def test_a_ground_truth_that_is_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "gt.txt").write_text("1,1,0,0,1,1,1\n")
    monkeypatch.setattr(mot_rows, "MAX_TRUTH_BYTES", 10)
    with pytest.raises(BadItem, match="14 bytes, more than the limit of 10 for ground truth"):
        read_ground_truth(str(tmp_path / "gt.txt"))


def test_a_record_and_a_source_from_outside_are_held_to_64_bits_too():
    with pytest.raises(ValueError, match="does not fit in 64 bits"):
        Objects(boxes=[[0, 0, 1, 1]], ids=[2**63], scores=[1])
    boxes = np.array([[0, 0, 1, 1]], np.float32)
    frame = Frame(
        image=np.zeros((4, 4, 3), np.uint8),
        annotations=Annotations(boxes=boxes, ids=[2**63], scores=[1.0], masks=[None]),
    )
    media = Media(
        kind="image", frames=[frame], original_height=4, original_width=4, sha256="0" * 64, num_bytes=1, annotated=True
    )
    with pytest.raises(BadMedia, match="id 9223372036854775808 does not fit in 64 bits"):
        check_media("mine", media)


def test_a_picture_beside_hostile_annotations_is_one_item(tmp_path):
    picture = make_sa1b_folder(tmp_path, 1)[0]
    notes = picture.with_suffix(".json")
    document = orjson.loads(notes.read_bytes())
    document["annotations"][0]["id"] = 2**64 - 1
    notes.write_bytes(orjson.dumps(document))
    (item,) = claim_all([str(tmp_path)], "auto", SETTINGS)[0]
    with pytest.raises(BadItem, match=r"annotation 0: 'id': 18446744073709551615 is too large"):
        open_source("sa1b", SETTINGS).read(item)


def test_ground_truth_that_has_to_be_read_for_the_plan_is_read_within_limits(tmp_path, monkeypatch):
    make_mot(tmp_path, num_frames=4)
    (sequence,) = tmp_path.rglob("img1")
    for picture in sorted(sequence.iterdir()):
        picture.rename(sequence / f"{int(picture.stem) - 1:06d}{picture.suffix}")
    asked = []
    monkeypatch.setattr(mot, "probe_files", lambda uris, probe, things, refuse: asked.append(uris) or [refuse("slow")])
    items = claim_all([str(tmp_path)], "mot", SETTINGS)[0]
    assert len(asked) == 1 and asked[0][0].endswith("gt.txt") and len(items) == 1
