"""Arithmetic on boxes. A box is `xyxy` in absolute pixels; x1, y1 lie on the right and lower edge (exclusive)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
"""(N, 4) float32, `xyxy`."""

LARGEST_COORDINATE = 1e9
"""In pixels; beyond it the area of a box says nothing in float32."""

MAX_REACH = 1e6
"""In pixels: no box that may leave its frame has a coordinate beyond it. Real ones leave it by some hundred."""

_ROUNDING = 0.011
"""In pixels: boxes are stored to a hundredth, so one that was cut at the border may end that much past it."""

_THINNEST = 0.02
"""In pixels: boxes are stored to a hundredth of a pixel, and a thinner one could be left without area."""


def empty_boxes() -> Boxes:
    """A (0, 4) float32 array."""
    return np.zeros((0, 4), np.float32)


def from_xywh(boxes_xywh: NDArray[np.floating]) -> Boxes:
    """(N, 4) `x, y, width, height` to `xyxy`."""
    b = np.asarray(boxes_xywh, np.float32).reshape(-1, 4)
    return np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1)


def box_areas(boxes: Boxes) -> NDArray[np.float32]:
    """(N,) areas in square pixels; an inverted box (x1 < x0 or y1 < y0) has area 0."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    areas: NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return areas


def clip_boxes(boxes: Boxes, height: int, width: int) -> Boxes:
    """Cut boxes (N, 4) at the borders of an image of `height` x `width` pixels."""
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, 0, limit).astype(np.float32)


def cut_at_frame(boxes: Boxes, height: int, width: int) -> Boxes:
    """Boxes (N, 4) whose parts outside an image of `height` x `width` pixels are cut off.

    Other than `clip_boxes` it leaves alone what reaches past the border by no more than boxes are rounded: of boxes
    that were cut before it changes nothing.
    """
    leaves = (boxes < -_ROUNDING) | (boxes > np.array([width, height, width, height]) + _ROUNDING)
    return np.where(leaves.any(axis=1, keepdims=True), clip_boxes(boxes, height, width), boxes).astype(np.float32)


def overlapping_frame(boxes: Boxes, height: int, width: int) -> NDArray[np.bool_]:
    """(N,) whether a square pixel or more of each box (N, 4) lies inside an image of `height` x `width` pixels.

    A part that is thinner than the hundredth of a pixel that boxes are stored to does not count.
    """
    clipped = clip_boxes(boxes, height, width)
    thick = (clipped[:, 2:] - clipped[:, :2] >= _THINNEST).all(axis=1)
    enough: NDArray[np.bool_] = thick & (box_areas(clipped) >= 1)
    return enough


def iou_matrix(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Intersection over union of every box of `a` (M, 4) with every box of `b` (N, 4): (M, N) float32 in 0..1."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    inter = sides[..., 0] * sides[..., 1]
    union = box_areas(a)[:, None] + box_areas(b)[None, :] - inter
    iou: NDArray[np.float32] = np.where(union > 0, inter / np.maximum(union, 1e-9), 0).astype(np.float32)
    return iou


def nms(
    boxes: Boxes, scores: NDArray[np.floating], iou_threshold: float, groups: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4).
        scores: (N,); among equal scores the earlier box wins.
        iou_threshold: a box is dropped when its IoU with a kept, better box is greater than this.
        groups: (N,) such as labels: boxes of different ones do not touch each other; None: all are one group.

    Returns:
        Indices of the kept boxes, best score first.
    """
    left = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    kept = []
    # A row at a time: the whole matrix of ten thousand boxes would take gigabytes.
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        covered = iou_matrix(boxes[best][None], boxes[left])[0] > iou_threshold
        if groups is not None:
            covered &= groups[left] == groups[best]
        left = left[~covered]
    return np.array(kept, np.int64)
