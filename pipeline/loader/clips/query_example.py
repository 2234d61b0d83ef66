"""A clip for tracking by query: T frames of one size, all people of each frame, and who they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryExample:
    """T frames of one clip, oldest first; T may be smaller than what was asked for, and is at least 1.

    Args:
        images: (T, H, W, 3) uint8 RGB.
        boxes: T arrays (G_t, 4) float32 `xyxy` in pixels of the frame, which they may leave; G_t may be 0.
        ids: T arrays (G_t,) int64 from 0: the same person has the same id in all frames, and once in each. Ids mean
            nothing outside the example.
        keys: T arrays (G_t,) int64, who that is over all data sets, see
            `trackmill.schemas.keys.identity_key`; `NO_KEY` where nobody knows, as in pictures.
        static: whether the frames are copies of one picture.
        origin: file or video that the pixels come from.
        key: of the sample.
        frames: (T,) int64 places of the frames in the sample.
        indices: (T,) int64 numbers of the frames in the source video.
    """

    images: NDArray[np.uint8]
    boxes: tuple[Boxes, ...]
    ids: tuple[NDArray[np.int64], ...]
    keys: tuple[NDArray[np.int64], ...]
    static: bool
    origin: str
    key: str
    frames: NDArray[np.int64]
    indices: NDArray[np.int64]

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.images)
