"""Detections and tracked objects: what does not fit is refused by argument and row, whatever form it comes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trackmill.schemas.detections import Detections, make_detections
from trackmill.schemas.masks import CroppedMask
from trackmill.schemas.tracking import TrackedObjects

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
        ({"boxes": [[0, 0, 1, 1], [0, 0, 1, 1e30]]}, "boxes: row 1 is farther than 1e"),
        ({"boxes": [[0, 0, 1, 1e300]]}, "boxes: row 0 is not finite"),  # beyond float32
        ({"boxes": [["a"] * 4]}, "boxes must be numbers"),
        ({"boxes": [[0, 0, 1, 1], [0]]}, "boxes: rows of different lengths"),
        ({"boxes": [0, 0, 1, 1]}, r"boxes: should be of shape \(N, 4\)"),
        ({"boxes": [], "scores": [1]}, r"scores: should be of shape \(0,\)"),
        ({"boxes": BOXES, "scores": [1, -np.inf, 1]}, "scores: row 1 is not finite"),
        ({"boxes": BOXES, "labels": [0, 0.5, 1]}, "labels: row 1 is not a whole number, found 0.5"),
        ({"boxes": BOXES, "labels": [0, np.nan, 1]}, "labels: row 1 is not a whole number"),
        ({"boxes": BOXES, "labels": [0, 1, 1e300]}, "labels: row 2 is not a whole number"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_does_not_fit_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_detections(**arguments)


def test_empty_and_outside_boxes_are_fine() -> None:
    found = make_detections(BOXES, [0.5, 0.25, 1])
    assert (found.boxes == np.array(BOXES, np.float32)).all()
    assert found.labels.tolist() == [0, 0, 0]
    for nothing in (make_detections([]), make_detections(np.zeros((0, 4)), names=("a",)), make_detections([], [], [])):
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
    nothing = found.select(np.zeros(3, bool))
    assert isinstance(nothing, Detections)
    assert nothing.masks == ()


def test_masks_are_replaced() -> None:
    masks = [CroppedMask(x=i, y=0, height=1, width=1, counts="01") for i in range(3)]
    cut = make_detections(BOXES, [0.5, 0.25, 1]).with_masks(masks)
    assert cut.masks == tuple(masks)
    assert cut.scores.tolist() == [0.5, 0.25, 1]
    with pytest.raises(ValueError, match="masks: 2 of them for 3 boxes"):
        cut.with_masks(masks[:2])


def _torch(array: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(array)


@pytest.mark.parametrize(
    "convert",
    [
        lambda array: array.tolist(),
        lambda array: array.astype(np.float64),
        lambda array: np.repeat(array, 2, axis=0)[::2],
        lambda array: np.asfortranarray(array),
        lambda array: _torch(array),
        lambda array: _torch(array).double().requires_grad_(),
        lambda array: _torch(array).half(),
    ],
    ids=["lists", "float64", "strided", "Fortran order", "torch", "torch with gradients", "torch half precision"],
)
def test_every_form_gives_the_same_arrays(convert: Callable[[np.ndarray], Any]) -> None:
    columns = np.array(BOXES, np.float32), np.array([0.5, 0.25, 1], np.float32), np.array([2, 0, 1], np.float32)
    made = make_detections(*map(convert, columns))
    for array, expected, dtype in zip(
        (made.boxes, made.scores, made.labels), columns, (np.float32, np.float32, np.int64), strict=True
    ):
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.tolist() == expected.tolist()


def test_arrays_that_fit_are_not_copied() -> None:
    boxes = np.array(BOXES, np.float32)
    assert make_detections(boxes).boxes is boxes


def test_tracked_objects_come_best_first_without_those_that_have_no_identity() -> None:
    detections = make_detections([[i, 0, i + 1, 1] for i in range(5)], [0.5, 0.9, 0.5, 0.1, 0.7])
    tracked = TrackedObjects.of(detections, [4, -1, 2, 7, 0])
    assert tracked.ids.tolist() == [0, 4, 2, 7], "equal scores in the order of the detections"
    assert tracked.indices.tolist() == [4, 0, 2, 3]
    assert tracked.objects.boxes[:, 0].tolist() == [4, 0, 2, 3]
    assert tracked.num_detections == 5
    assert len(TrackedObjects.of(make_detections([]), [])) == 0


@pytest.mark.parametrize(
    ("ids", "message"),
    [([0, 1], r"ids: should be of shape \(3,\)"), ([3, 0, 3], "ids: 3 stands twice"), ([0, 0.5, 1], "ids: row 1")],
)
def test_identities_that_do_not_fit_are_refused(ids: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrackedObjects.of(make_detections(BOXES), ids)
