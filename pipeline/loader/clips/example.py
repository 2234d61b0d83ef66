"""A clip as a trainer takes it: pixels of T frames, and per frame the boxes with their identities."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes

NEGATIVE = -1
"""The id of a pseudo-negative: somebody else than all identities of its frame, nobody knows who."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipExample:
    """T frames of one clip, oldest first. T may be smaller than what was asked for, and is at least 2.

    Args:
        images: (T, S, S, 3) uint8 RGB; the frame lies in the upper left, all else is black (0).
        size: height and width of the frame inside the square, the same in all frames.
        boxes: T arrays (N_t, 4) float32 `xyxy` in pixels of the square; objects first, then negatives, best first.
        ids: T arrays (N_t,) int64. An object has the same id, 0 or more, in every frame, and once a frame at most;
            pseudo-negatives have `NEGATIVE`. Ids mean nothing outside the example.
        origin: file or video that the pixels come from.
        key: of the sample.
        frames: (T,) int64 places of the frames in the sample.
        indices: (T,) int64 numbers of the frames in the source video.
        times: (T,) float64 seconds in the source video; NaN where unknown.
    """

    images: NDArray[np.uint8]
    size: tuple[int, int]
    boxes: tuple[Boxes, ...]
    ids: tuple[NDArray[np.int64], ...]
    origin: str
    key: str
    frames: NDArray[np.int64]
    indices: NDArray[np.int64]
    times: NDArray[np.float64]

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.images)

    @property
    def num_pairs(self) -> int:
        """Identities that are in a frame and in the next one, summed over the clip: the positive pairs of Eq. 2."""
        return num_pairs(self.ids)


def num_pairs(ids: tuple[NDArray[np.int64], ...] | list[NDArray[np.int64]]) -> int:
    """Identities that are in a frame and in the next one, summed over T arrays (N_t,)."""
    objects = [each[each >= 0] for each in ids]
    return sum(int(np.isin(here, after).sum()) for here, after in pairwise(objects))
