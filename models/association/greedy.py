"""Greedy choice of tracks: detections, best first, each take their most similar track that is still free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def choose_greedily(
    similarity: NDArray[np.float32], threshold: float, num_tracks: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Walk through the rows of `similarity`; each takes the column of its maximum if that is above `threshold`.

    A taken column counts as 0 for the rows after; among equal maxima the first column wins. Columns from `num_tracks`
    on can be the maximum but cannot be taken: such a row takes nothing, and the column stays as it is. All maxima are
    found at once, and only a row whose column was taken meanwhile looks again.

    Args:
        similarity: (N, T) float32, rows best first.
        threshold: not negative, so that a taken column is never above it.
        num_tracks: columns that can be taken.

    Returns:
        (N,) int64 the column that each row took, -1 for none; (T,) float32 with 0 for taken columns, 1 for free ones.
    """
    chosen = np.full(len(similarity), -1, np.int64)
    free = np.ones(similarity.shape[1], np.float32)
    best = similarity.argmax(axis=1)
    confident = np.flatnonzero(similarity[np.arange(len(similarity)), best] > threshold)
    taken: dict[int, int] = {}
    for row, column in zip(confident.tolist(), best[confident].tolist()):
        if column in taken:
            left = similarity[row] * free
            column = int(left.argmax())
            if not left[column] > threshold:
                continue
        if column < num_tracks:
            taken[column] = row
            free[column] = 0
    columns = np.fromiter(taken.keys(), np.int64, len(taken))
    chosen[np.fromiter(taken.values(), np.int64, len(taken))] = columns
    return chosen, free
