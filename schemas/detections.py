"""What a detector found in one image: boxes, scores, labels, and masks where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes, empty_boxes
from trackmill.schemas.masks import CroppedMask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """N detections of one image.

    Args:
        boxes: (N, 4) float32 `xyxy` in pixels of the image as the detector was given it; they may leave the image.
        scores: (N,) float32 confidences.
        labels: (N,) int64, places in `names`.
        names: name of each label; empty where labels have no names.
        masks: N masks in the same image, None for an object without one; None where there are only boxes.

    Raises:
        ValueError: shapes that do not fit together, a number that is not finite, a box turned inside out, or a label
            outside `names`; names the argument and the row.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()
    masks: tuple[CroppedMask | None, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes: should be of shape (N, 4), found {self.boxes.shape}")
        if self.scores.shape != (count,):
            raise ValueError(f"scores: should be of shape ({count},) like boxes, found {self.scores.shape}")
        if self.labels.shape != (count,):
            raise ValueError(f"labels: should be of shape ({count},) like boxes, found {self.labels.shape}")
        if self.masks is not None and len(self.masks) != count:
            raise ValueError(f"masks: {len(self.masks)} of them for {count} boxes")
        _refuse("boxes", ~np.isfinite(self.boxes).all(axis=1), self.boxes, "is not finite")
        _refuse("scores", ~np.isfinite(self.scores), self.scores, "is not finite")
        inside_out = (self.boxes[:, 2:] < self.boxes[:, :2]).any(axis=1)
        _refuse("boxes", inside_out, self.boxes, "has x1 < x0 or y1 < y0; boxes are x0, y0, x1, y1")
        if self.names:
            unknown = (self.labels < 0) | (self.labels >= len(self.names))
            _refuse("labels", unknown, self.labels, f"is none of the {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: NDArray[Any]) -> Detections:
        """The detections of a boolean mask (N,), or of an array of indices in their order."""
        kept = np.arange(len(self))[keep]
        return Detections(
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            names=self.names,
            masks=None if self.masks is None else tuple(self.masks[i] for i in kept.tolist()),
        )


def make_detections(
    boxes: Any,
    scores: Any = None,
    labels: Any = None,
    names: Sequence[str] = (),
    masks: Sequence[CroppedMask | None] | None = None,
) -> Detections:
    """Detections out of anything NumPy understands; absent scores are 1, absent labels 0.

    Raises:
        ValueError: as `Detections`.
    """
    boxes = np.asarray(boxes, np.float32)
    boxes = boxes if boxes.size else empty_boxes()
    count = len(boxes)
    return Detections(
        boxes=boxes,
        scores=np.ones(count, np.float32) if scores is None else np.asarray(scores, np.float32),
        labels=np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64),
        names=tuple(names),
        masks=None if masks is None else tuple(masks),
    )


def no_detections(names: Sequence[str] = ()) -> Detections:
    """None at all."""
    return make_detections(empty_boxes(), names=names)


def _refuse(name: str, bad: Any, values: NDArray[Any], fault: str) -> None:
    for row in np.flatnonzero(bad)[:1].tolist():
        raise ValueError(f"{name}: row {row} {fault}, found {values[row].tolist()}")
