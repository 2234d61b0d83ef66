"""The fixed linking rule: a Hungarian assignment on cosine in each frame, and a moving average of each track's vector.

It uses only appearance: no motion, no position, no class. The rule is the same for every embedding, so a difference in
AssA is a difference between embeddings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def link(
    vectors: NDArray[np.float32],
    frames: NDArray[np.int64],
    *,
    threshold: float,
    stride: int = 1,
    memory: int = 10,
    ema: float = 0.5,
) -> NDArray[np.int64]:
    """Link boxes into tracks, in each phase of `stride` separately: frames f, f + stride, f + 2 stride, ...

    In each frame, the assignment of boxes to remembered tracks maximises the sum of (cosine - threshold); no pair at or
    below the threshold is chosen. An unassigned box begins a track. The vector of an assigned track becomes
    (1 - ema) x its vector + ema x the box's, normalised to unit length.

    Args:
        vectors: (N, D) of unit length, or zero.
        frames: (N,) frame number, ascending.
        threshold: cosine above which a box may continue a track.
        stride: frames from one processed frame to the next.
        memory: number of processed frames, also those without boxes, after which an unseen track is forgotten.
        ema: weight of the new vector, in (0, 1].

    Returns:
        (N,) track of each box; no track is in two phases.
    """
    tracks = np.empty(len(frames), np.int64)
    shown, starts = np.unique(frames, return_index=True)
    bounds = np.append(starts, len(frames)).tolist()
    steps, phases = (shown // stride).tolist(), shown % stride
    num_tracks = 0
    for phase in np.unique(phases):
        known = _Known(vectors.shape[1])
        for place in np.flatnonzero(phases == phase).tolist():
            rows = slice(bounds[place], bounds[place + 1])
            known.forget(steps[place] - memory)
            seen = vectors[rows]
            boxes, places = _best_pairs(seen @ known.vectors.T, threshold)
            assigned = np.full(len(seen), -1, np.int64)
            assigned[boxes] = known.tracks[places]
            known.update(places, seen[boxes], steps[place], ema)
            fresh = np.flatnonzero(assigned < 0)
            assigned[fresh] = np.arange(num_tracks, num_tracks + len(fresh))
            num_tracks += len(fresh)
            known.add(seen[fresh], assigned[fresh], steps[place])
            tracks[rows] = assigned
    return tracks


class _Known:
    """Tracks that may still be continued: vectors (M, D), track numbers (M,), step of the last observation (M,)."""

    def __init__(self, size: int) -> None:
        self.vectors = np.zeros((0, size), np.float32)
        self.tracks = np.zeros(0, np.int64)
        self._last = np.zeros(0, np.int64)

    def forget(self, oldest: int) -> None:
        """Drop tracks that were last seen before the step `oldest`."""
        keep = self._last >= oldest
        if not keep.all():
            self.vectors, self.tracks, self._last = self.vectors[keep], self.tracks[keep], self._last[keep]

    def update(self, places: NDArray[np.int64], seen: NDArray[np.float32], step: int, ema: float) -> None:
        mixed = (1 - ema) * self.vectors[places] + ema * seen
        length = np.sqrt(np.einsum("nd,nd->n", mixed, mixed))
        self.vectors[places] = mixed / np.where(length > 0, length, 1)[:, None]
        self._last[places] = step

    def add(self, seen: NDArray[np.float32], tracks: NDArray[np.int64], step: int) -> None:
        if len(tracks):
            self.vectors = np.concatenate([self.vectors, seen])
            self.tracks = np.concatenate([self.tracks, tracks])
            self._last = np.concatenate([self._last, np.full(len(tracks), step)])


def _best_pairs(cosine: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # Weak pairs gain nothing in the assignment. If they were removed only afterwards, they could displace good ones.
    gain = np.maximum(cosine - np.float32(threshold), 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = gain[rows, columns] > 0
    return rows[kept], columns[kept]
