"""What a detector found: shapes and values that do not fit are told with their row."""

from __future__ import annotations

import numpy as np
import pytest

from trackmill.schemas.detections import Detections, make_detections, no_detections
from trackmill.schemas.masks import CroppedMask

BOXES = [[0, 0, 2, 3], [1, 1, 1, 4], [-5, -5, 500, 500]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": [[0, 0, 1]]}, r"boxes: should be of shape \(N, 4\)"),
        ({"boxes": BOXES, "scores": [1, 1]}, r"scores: should be of shape \(3,\)"),
        ({"boxes": BOXES, "labels": [[0, 0, 0]]}, "labels: should be of shape"),
        ({"boxes": BOXES, "scores": [1, np.nan, 1]}, "scores: row 1 is not finite"),
        ({"boxes": [[0, 0, 1, np.inf]]}, "boxes: row 0 is not finite"),
        ({"boxes": [[0, 0, 1, 1], [4, 0, 3, 1]]}, "boxes: row 1 has x1 < x0"),
        ({"boxes": BOXES, "labels": [0, 2, 1], "names": ("a", "b")}, "labels: row 1 is none of the 2 names"),
        ({"boxes": BOXES, "masks": [None]}, "masks: 1 of them for 3 boxes"),
    ],
)
def test_what_does_not_fit_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_detections(**arguments)


def test_empty_and_outside_boxes_are_fine() -> None:
    found = make_detections(BOXES, [0.5, 0.25, 1])
    assert (found.boxes == np.array(BOXES, np.float32)).all()
    assert found.labels.tolist() == [0, 0, 0]
    for nothing in (make_detections([]), make_detections(np.zeros((0, 4))), no_detections(("a",))):
        assert len(nothing) == 0
        assert nothing.boxes.shape == (0, 4)


def test_select_keeps_rows_together() -> None:
    masks = [CroppedMask(x=i, y=0, height=1, width=1, counts="01") for i in range(3)]
    found = make_detections(BOXES, [0.5, 0.25, 1], [2, 1, 0], ("a", "b", "c"), masks)
    for keep in (np.array([2, 0]), np.array([True, False, True])):
        part = found.select(keep)
        order = [2, 0] if keep.dtype != bool else [0, 2]
        assert part.boxes.tolist() == [BOXES[i] for i in order]
        assert part.labels.tolist() == [2 - i for i in order]
        assert part.masks == tuple(masks[i] for i in order)
    assert isinstance(found.select(np.zeros(3, bool)), Detections)
