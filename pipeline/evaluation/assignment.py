"""One-to-one assignment in each frame: chooses the overlapping pairs with the largest sum of weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trackmill.pipeline.evaluation.overlaps import Overlaps


def best_pairs(overlaps: Overlaps, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """The one-to-one choice of pairs with the largest sum of weights in every frame.

    Args:
        overlaps: K pairs.
        weights: (K,) not negative; a pair of weight 0 is never chosen.

    Returns:
        Indices of the chosen pairs, ascending.
    """
    candidates = np.flatnonzero(weights > 0)
    crowded = crowded_frames(overlaps, candidates)
    simple = candidates[~crowded[overlaps.pair_frames[candidates]]]
    solver = FrameSolver(overlaps)
    for frame in np.flatnonzero(crowded).tolist():
        solver.solve(frame, weights)
    return np.sort(np.concatenate([simple, solver.chosen(weights)]))


def crowded_frames(overlaps: Overlaps, candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(T,) frames in which some object is in two candidate pairs; all others need no assignment."""
    rows, columns = overlaps.pair_gt[candidates], overlaps.pair_pred[candidates]
    shared = (np.bincount(rows, minlength=overlaps.num_gt)[rows] > 1) | (
        np.bincount(columns, minlength=overlaps.num_pred)[columns] > 1
    )
    crowded = np.zeros(overlaps.num_frames, bool)
    crowded[overlaps.gt_frames[rows[shared]]] = True
    return crowded


class FrameSolver:
    """Solves the assignment of one frame after the other.

    The solver gets the whole matrix of a frame, rows and columns in the order of the files: its choice among equal sums
    depends on both, and the official tools score that choice.

    Cells are numbered across all frames, so that one search at the end turns the chosen cells back into pairs.
    """

    def __init__(self, overlaps: Overlaps) -> None:
        rows, columns = np.diff(overlaps.gt_starts), np.diff(overlaps.pred_starts)
        sizes = rows * columns
        first_cells = np.cumsum(sizes) - sizes
        frames = overlaps.pair_frames
        row = overlaps.pair_gt - overlaps.gt_starts[frames]
        column = overlaps.pair_pred - overlaps.pred_starts[frames]
        self._cells = row * columns[frames] + column
        self._numbered = self._cells + first_cells[frames]
        # Plain lists: taking one number out of an array costs as much as a small operation on all of it.
        self._shapes = list(zip(rows.tolist(), columns.tolist()))
        self._first_cells = first_cells.tolist()
        self._starts = overlaps.pair_starts.tolist()
        self._chosen: list[NDArray[np.int64]] = []

    def solve(self, frame: int, weights: NDArray[np.float64]) -> None:
        """Choose pairs of one frame; `weights` (K,) are those of all pairs."""
        low, high = self._starts[frame], self._starts[frame + 1]
        shape = self._shapes[frame]
        cost = np.zeros(shape[0] * shape[1])
        cost[self._cells[low:high]] = -weights[low:high]
        rows, columns = linear_sum_assignment(cost.reshape(shape))
        self._chosen.append(rows * shape[1] + columns + self._first_cells[frame])

    def chosen(self, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Indices of the pairs of positive weight chosen since the last call, unsorted."""
        if not self._chosen:
            return np.zeros(0, np.int64)
        cells = np.concatenate(self._chosen)
        self._chosen.clear()
        pairs = np.minimum(np.searchsorted(self._numbered, cells), len(self._numbered) - 1)
        kept: NDArray[np.int64] = pairs[(self._numbered[pairs] == cells) & (weights[pairs] > 0)]
        return kept
