"""Sums over the rows and columns of each frame's IoU matrix, rounded as NumPy rounds them on the whole matrix.

NumPy sums eight or more contiguous numbers in a tree, fewer from left to right. The last bit differs, and where
overlaps are equal (boxes on a coarse grid, duplicate boxes), that bit decides which of two equal pairings the
assignment takes. The official tools sum whole matrices, so the zeros that `Overlaps` leaves out are put back here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.overlaps import Overlaps

_TREE = 8
"""NumPy sums this many contiguous numbers, or more, in a tree."""


def gt_sums(overlaps: Overlaps) -> NDArray[np.float64]:
    """(G,) summed IoU of each ground-truth object with the predictions of its frame."""
    rows, columns = _sizes(overlaps, overlaps.gt_frames)
    places = overlaps.pair_pred - overlaps.pred_starts[overlaps.pair_frames]
    # A row is contiguous in a matrix that is stored row by row, or that has no other row.
    contiguous = (rows == 1) if overlaps.column_major else np.ones(len(rows), bool)
    return _sums(overlaps.pair_gt, places, np.where(contiguous, columns, 0), overlaps.pair_iou)


def pred_sums(overlaps: Overlaps) -> NDArray[np.float64]:
    """(P,) summed IoU of each prediction with the ground truth of its frame."""
    rows, columns = _sizes(overlaps, overlaps.pred_frames)
    places = overlaps.pair_gt - overlaps.gt_starts[overlaps.pair_frames]
    contiguous = np.ones(len(columns), bool) if overlaps.column_major else (columns == 1)
    return _sums(overlaps.pair_pred, places, np.where(contiguous, rows, 0), overlaps.pair_iou)


def _sizes(overlaps: Overlaps, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the matrix of each frame."""
    return np.diff(overlaps.gt_starts)[frames], np.diff(overlaps.pred_starts)[frames]


def _sums(
    lines: NDArray[np.int64], places: NDArray[np.int64], lengths: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum of each line; one with `lengths` > 0 is that many contiguous numbers, zeros included, summed as in NumPy."""
    sums = np.bincount(lines, values, minlength=len(lengths)).astype(np.float64)
    filled = np.bincount(lines, minlength=len(lengths))
    # The sum of two numbers does not depend on their order.
    is_long = (lengths >= _TREE) & (filled > 2)
    long = np.flatnonzero(is_long)
    long = long[np.argsort(lengths[long], kind="stable")]
    pairs = np.flatnonzero(is_long[lines])
    pairs = pairs[np.argsort(lengths[lines[pairs]], kind="stable")]
    line_lengths, pair_lengths = lengths[long], lengths[lines[pairs]]
    row = np.empty(len(sums), np.int64)
    for length in np.unique(line_lengths).tolist():
        same = long[slice(*np.searchsorted(line_lengths, [length, length + 1]))]
        inside = pairs[slice(*np.searchsorted(pair_lengths, [length, length + 1]))]
        row[same] = np.arange(len(same))
        matrix = np.zeros((len(same), length))
        matrix[row[lines[inside]], places[inside]] = values[inside]
        sums[same] = matrix.sum(axis=1)
    return sums
