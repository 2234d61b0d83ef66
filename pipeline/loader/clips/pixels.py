"""The pixels of a clip: each frame is scaled as it is when tracking, without aliasing, and a part of it is kept."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.clips.jitter import Jitter

ALIASES = 1.1
"""Shrunk by more than this, bilinear sampling would skip pixels: then each pixel is the mean of those it covers."""


def place_frame(image: NDArray[np.uint8], jitter: Jitter, out: NDArray[np.uint8]) -> None:
    """Write the part of a frame that `jitter` shows.

    Args:
        image: (h, w, 3) uint8, the frame as decoded, at its own size or smaller.
        jitter: where it goes.
        out: (S, S, 3) uint8; its upper left is written.
    """
    (height, width), (x, y), (rows, columns) = jitter.scaled, jitter.corner, jitter.size
    shrinks = max(image.shape[0] / height, image.shape[1] / width) > ALIASES
    whole = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    part = whole[y : y + rows, x : x + columns]
    if jitter.flip:
        cv2.flip(part, 1, dst=out[:rows, :columns])
    else:
        out[:rows, :columns] = part
