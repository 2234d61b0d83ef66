"""What a detector finds in one image: boxes, scores, labels, and masks where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.arrays import float_array, whole_array
from trackmill.schemas.boxes import LARGEST_COORDINATE, Boxes
from trackmill.schemas.masks import CroppedMask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """N detections of one image, checked when they are made and by nobody after that.

    Arrays of another type or memory order are converted; those that fit are not copied.

    Args:
        boxes: (N, 4) float32 `xyxy` in pixels of the image as the detector was given it; they may leave the image.
        scores: (N,) float32 confidences.
        labels: (N,) int64, places in `names`.
        names: name of each label; empty where labels have no names.
        masks: N masks in the same image, None for an object without one; None where there are only boxes.

    Raises:
        ValueError: shapes that do not fit together, a number that is not finite, a coordinate beyond
            `LARGEST_COORDINATE`, an inverted box (x1 < x0 or y1 < y0), or a label outside `names`; names the argument
            and the row.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()
    masks: tuple[CroppedMask | None, ...] | None = None

    def __post_init__(self) -> None:
        boxes, scores = float_array(self.boxes, "boxes"), float_array(self.scores, "scores")
        labels = whole_array(self.labels, "labels")
        for name, array in (("boxes", boxes), ("scores", scores), ("labels", labels)):
            object.__setattr__(self, name, array)
        count = len(boxes)
        if boxes.shape != (count, 4):
            raise ValueError(f"boxes: should be of shape (N, 4), found {boxes.shape}")
        if scores.shape != (count,):
            raise ValueError(f"scores: should be of shape ({count},) like boxes, found {scores.shape}")
        if labels.shape != (count,):
            raise ValueError(f"labels: should be of shape ({count},) like boxes, found {labels.shape}")
        if self.masks is not None and len(self.masks) != count:
            raise ValueError(f"masks: {len(self.masks)} of them for {count} boxes")
        # A comparison with NaN is false, so one look at the greatest refuses NaN as well.
        if not np.abs(boxes).max(initial=0) <= LARGEST_COORDINATE:
            _refuse("boxes", ~np.isfinite(boxes).all(axis=1), boxes, "is not finite")
            far = (np.abs(boxes) > LARGEST_COORDINATE).any(axis=1)
            _refuse("boxes", far, boxes, f"is farther than {LARGEST_COORDINATE:g} pixels from the image's corner")
        _refuse("scores", ~np.isfinite(scores), scores, "is not finite")
        inverted = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        _refuse("boxes", inverted, boxes, "has x1 < x0 or y1 < y0; boxes are x0, y0, x1, y1")
        if self.names:
            unknown = (labels < 0) | (labels >= len(self.names))
            _refuse("labels", unknown, labels, f"is none of the {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: NDArray[Any]) -> Detections:
        """The detections of a boolean mask (N,), or of an array of indices in their order; not checked again."""
        kept = np.arange(len(self))[keep]
        return _unchecked(
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            names=self.names,
            masks=None if self.masks is None else tuple(self.masks[i] for i in kept.tolist()),
        )

    def with_masks(self, masks: Sequence[CroppedMask | None]) -> Detections:
        """The same detections with these masks instead of their own.

        Raises:
            ValueError: another number of masks than of detections.
        """
        if len(masks) != len(self):
            raise ValueError(f"masks: {len(masks)} of them for {len(self)} boxes")
        return _unchecked(
            boxes=self.boxes, scores=self.scores, labels=self.labels, names=self.names, masks=tuple(masks)
        )


def make_detections(
    boxes: Any,
    scores: Any = None,
    labels: Any = None,
    names: Sequence[str] = (),
    masks: Sequence[CroppedMask | None] | None = None,
) -> Detections:
    """Detections out of nested lists, NumPy arrays or torch tensors; absent scores are 1, absent labels 0.

    Args:
        boxes: (N, 4) `xyxy` in pixels; for N = 0 anything empty.
        scores: (N,).
        labels: (N,) whole numbers, also as floats.
        names, masks: as in `Detections`.

    Raises:
        ValueError: as `Detections`; numbers that are none, or a label that is not whole.
    """
    array = float_array(boxes, "boxes")
    count = len(array) if array.size else 0
    return Detections(
        boxes=array if array.size else array.reshape(0, 4),
        scores=np.ones(count, np.float32) if scores is None else scores,
        labels=np.zeros(count, np.int64) if labels is None else labels,
        names=tuple(names),
        masks=None if masks is None else tuple(masks),
    )


def _unchecked(**fields: Any) -> Detections:
    """Detections whose rows have been checked before."""
    made = object.__new__(Detections)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _refuse(name: str, bad: Any, values: NDArray[Any], fault: str) -> None:
    for row in np.flatnonzero(bad)[:1].tolist():
        raise ValueError(f"{name}: row {row} {fault}, found {values[row].tolist()}")
