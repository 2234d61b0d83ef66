"""Boxes that leave their picture: kept as annotated where that is asked for, cut at the border otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from tests.make_media import make_mot
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.mining.negatives import pseudo_negatives
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.check import BadMedia, check_media
from trackmill.schemas.boxes import cut_at_frame, overlapping_frame
from trackmill.schemas.media import Annotations, Frame, Media, ProposalSet

ROWS = """\
1,1,-20,10,40,30,1,1,1
1,2,50,-6,10,80,1,1,1
1,3,200,10,20,20,1,1,1
1,4,-10,-10,5,20,0,1,1
1,5,-10,20,14,10,0,1,1
"""
"""In a picture of 64 x 48: one leaves it to the left, one above and below, one is outside; two are ignored regions."""


def read(folder, settings: ReadSettings, rows: str = ROWS) -> Media:
    sequence = make_mot(folder, num_frames=1)
    (sequence / "gt" / "gt.txt").write_text(rows)
    (item,), _, _ = claim_all([str(folder)], "auto", settings)
    media = open_source("mot", settings).read(item)
    check_media("mot", media)
    return media


def test_boxes_of_objects_are_kept_as_annotated(tmp_path):
    media = read(tmp_path, ReadSettings(amodal=True))
    assert media.amodal and media.frames[0].image.shape[:2] == (48, 64)
    found = media.frames[0].annotations
    assert found.ids == [1, 2] and found.boxes.tolist() == [[-20, 10, 20, 40], [50, -6, 60, 74]]
    assert found.ignore.tolist() == [[0, 20, 4, 30]], "regions to ignore are cut"


def test_they_are_cut_by_default_and_the_same_objects_remain(tmp_path):
    media = read(tmp_path, ReadSettings())
    found = media.frames[0].annotations
    assert not media.amodal and found.ids == [1, 2]
    assert found.boxes.tolist() == [[0, 10, 20, 40], [50, 0, 60, 48]]


def test_they_are_scaled_with_their_frame(tmp_path):
    media = read(tmp_path, ReadSettings(amodal=True, longest_side=32))
    assert media.frames[0].annotations.boxes.tolist() == [[-10, 5, 10, 20], [25, -3, 30, 37]]


@pytest.mark.parametrize("row", ["1,7,0,0,1e9,20,1,1,1", "1,7,-2e6,0,3e6,20,1,1,1", "1,7,0,0,1e300,20,1,1,1"])
def test_a_box_that_reaches_too_far_is_bad_data(tmp_path, row):
    with pytest.raises(BadItem, match=r"gt\.txt: frame 1: box \[.*reaches beyond 1,000,000 pixels"):
        read(tmp_path / "a", ReadSettings(amodal=True), row)
    assert read(tmp_path / "b", ReadSettings(), row).frames[0].annotations.ids == [7]


@pytest.mark.parametrize(
    ("box", "amodal", "fine"),
    [
        ([-5, 0, 2, 8], False, False),
        ([-5, 0, 2, 8], True, True),
        ([-5, 0, -1, 8], True, False),  # nothing of it inside
        ([-5, 0, 0.001, 8], True, False),  # less than is stored
        ([-2e6, 0, 2, 8], True, False),
    ],
)
def test_a_source_is_held_to_what_it_says(box, amodal, fine):
    notes = Annotations(boxes=np.array([box], np.float32), ids=[1], scores=[1.0], masks=[None])
    frame = Frame(image=np.zeros((8, 8, 3), np.uint8), annotations=notes)
    media = Media(
        kind="image",
        frames=[frame],
        original_height=8,
        original_width=8,
        sha256="0" * 64,
        num_bytes=1,
        annotated=True,
        amodal=amodal,
    )
    if fine:
        check_media("mine", media)
        return
    with pytest.raises(BadMedia, match="outside of the frame of 8 x 8"):
        check_media("mine", media)


def test_what_is_seen_of_an_object_is_no_negative():
    """Its whole box overlaps a proposal of the visible half by an IoU of 0.5 at most, and the cut box by 1."""
    objects = Annotations(boxes=np.array([[-30, 0, 20, 40]], np.float32), ids=[1], scores=[1.0], masks=[None])
    seen = ProposalSet(boxes=np.array([[0, 0, 20, 40]], np.float32), scores=np.ones(1, np.float32), masks=[None])
    assert pseudo_negatives(seen, objects, True, 0.5) == [0]
    assert pseudo_negatives(seen, objects, True, 0.5, (48, 64)) == []


def test_boxes_that_were_cut_stay_as_they_are():
    boxes = np.array([[0, 0, 64.01, 48], [-0.01, 0, 5, 5], [-0.5, 0, 70, 48]], np.float32)
    assert cut_at_frame(boxes, 48, 64).tolist() == [boxes[0].tolist(), boxes[1].tolist(), [0, 0, 64, 48]]
    thin = np.array([[-9, 0, 0.01, 200], [-9, 0, 1, 1], [-9, 0, 1, 0.5]], np.float32)
    assert overlapping_frame(thin, 300, 300).tolist() == [False, True, False]


def test_copies_of_a_sequence_of_mot17_are_named(tmp_path, caplog):
    for detector in ("DPM", "FRCNN", "SDP"):
        make_mot(tmp_path, num_frames=1).rename(tmp_path / f"MOT17-02-{detector}")
    make_mot(tmp_path / "other", num_frames=1)
    items, _, _ = claim_all([str(tmp_path)], "auto", ReadSettings())
    assert len(items) == 4 and f'--input "{tmp_path}/*-FRCNN/**" names one of each' in caplog.text
    caplog.clear()
    items, _, _ = claim_all([f"{tmp_path}/*-FRCNN/**"], "auto", ReadSettings())
    assert len(items) == 1 and "names one of each" not in caplog.text
