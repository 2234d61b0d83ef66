"""Pseudo-negatives: what overlaps an object or an ignored region is none, and where nothing is known there are none."""

from __future__ import annotations

import numpy as np
import pytest

from trackmill.pipeline.mining.negatives import pseudo_negatives
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.media import Annotations, ProposalSet


def boxes(*rows: tuple[float, float, float, float]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 4)


def proposals(*rows: tuple[float, float, float, float], from_objects: bool = False) -> ProposalSet:
    return ProposalSet(
        boxes=boxes(*rows), scores=np.ones(len(rows), np.float32), masks=[None] * len(rows), from_objects=from_objects
    )


OBJECT = (0.0, 0.0, 10.0, 10.0)
FAR = (50.0, 50.0, 60.0, 60.0)


@pytest.mark.parametrize(
    ("proposal", "negative"),
    [
        (OBJECT, False),
        (FAR, True),
        ((0, 0, 10, 5), False),  # IoU exactly 0.5
        ((0, 0, 10, 4.9), True),  # IoU just below
        ((10, 0, 20, 10), True),  # touches at an edge
        ((0, 0, 40, 40), True),  # holds the object and is something else
    ],
)
def test_only_the_iou_decides(proposal: tuple[float, float, float, float], negative: bool) -> None:
    annotations = Annotations(boxes=boxes((80, 80, 90, 90), OBJECT))
    assert pseudo_negatives(proposals(proposal), annotations, True, 0.5) == ([0] if negative else [])


@pytest.mark.parametrize(
    ("proposal", "negative"),
    [
        ((100, 100, 110, 110), False),  # a person in the middle of a crowd: IoU 0.01, but wholly inside
        ((195, 100, 205, 110), False),  # half of it inside
        ((196, 100, 206, 110), True),  # less than half
        (FAR, True),
    ],
)
def test_ignored_regions_hold_no_negatives(proposal: tuple[float, float, float, float], negative: bool) -> None:
    annotations = Annotations(ignore=boxes((100, 100, 200, 200), (300, 300, 301, 301)))
    assert pseudo_negatives(proposals(proposal), annotations, True, 0.5) == ([0] if negative else [])


def test_indices_point_into_the_proposals() -> None:
    found = proposals(FAR, OBJECT, (20, 20, 30, 30), (1, 0, 10, 10))
    assert pseudo_negatives(found, Annotations(boxes=boxes(OBJECT)), True, 0.5) == [0, 2]
    assert pseudo_negatives(found, Annotations(boxes=boxes(OBJECT)), True, 0.95) == [0, 2, 3]


def test_where_nothing_is_known_nothing_is_negative() -> None:
    found = proposals(FAR)
    assert pseudo_negatives(found, None, True, 0.5) == []  # a frame between two annotated ones
    assert pseudo_negatives(found, Annotations(), False, 0.5) == []  # a raw picture
    assert pseudo_negatives(found, Annotations(), True, 0.5) == [0]  # annotated, and there is no object


def test_objects_are_no_negatives_and_no_proposals_give_none() -> None:
    assert pseudo_negatives(proposals(FAR, from_objects=True), Annotations(boxes=boxes(OBJECT)), True, 0.5) == []
    assert pseudo_negatives(proposals(), Annotations(boxes=boxes(OBJECT)), True, 0.5) == []
