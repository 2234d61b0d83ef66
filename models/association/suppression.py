"""Which boxes are covered by a better one: the trackers' removal of duplicates, before and after association.

Unlike non-maximum suppression, a box that was itself removed still covers later ones (released code, both trackers).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes

_LEAST_UNION = np.float32(1e-6)
"""Square pixels; the union in the denominator is at least this (mmdet's overlaps), so empty boxes overlap nothing."""


def overlaps(boxes: Boxes, others: Boxes) -> NDArray[np.float32]:
    """Intersection over union as the trackers were tuned with: (M, 4) and (N, 4) give (M, N) float32.

    `trackmill.schemas.boxes.iou_matrix` differs in inverted boxes (x1 < x0) and where the union is tiny.
    """
    left, top, right, bottom = np.ascontiguousarray(boxes.T)[:, :, None]  # each (M, 1)
    other_left, other_top, other_right, other_bottom = np.ascontiguousarray(others.T)  # each (N,)
    common: NDArray[np.float32] = np.minimum(right, other_right)
    common -= np.maximum(left, other_left)
    np.maximum(common, 0, out=common)
    heights = np.minimum(bottom, other_bottom)
    heights -= np.maximum(top, other_top)
    np.maximum(heights, 0, out=heights)
    common *= heights
    union = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top)
    union -= common
    np.maximum(union, _LEAST_UNION, out=union)
    common /= union
    return common


def covered(overlap: NDArray[np.float32], threshold: float | NDArray[np.float32], first: int = 0) -> NDArray[np.bool_]:
    """Whether each row's box overlaps any box before it by more than `threshold`.

    Args:
        overlap: (M, N) intersection over union of the boxes `first`, `first` + 1, ... with all N, best first.
        threshold: one for all, or (M, 1) float32.
        first: which of the N the first row is.

    Returns:
        (M,).
    """
    hits = overlap > threshold
    rows = np.arange(len(overlap))
    first_hits = hits.argmax(axis=1)  # 0 where there is none; mostly the box itself otherwise
    better: NDArray[np.bool_] = (first_hits < rows + first) & hits[rows, first_hits]
    return better
