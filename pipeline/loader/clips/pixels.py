"""The pixels of a clip: each frame is decoded at the size that is needed, then moved once, into its place."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.clips.jitter import Jitter


def place_frame(image: NDArray[np.uint8], height: int, width: int, jitter: Jitter, out: NDArray[np.uint8]) -> None:
    """Write the part of a frame that `jitter` shows.

    Args:
        image: (h, w, 3) uint8, the frame as decoded: h and w are those of the stored frame times a number of eighths,
            rounded up.
        height, width: of the stored frame.
        jitter: where it goes.
        out: (S, S, 3) uint8; its upper left is written.
    """
    # Pixel i covers [i, i + 1); for OpenCV, whole coordinates are the centres of pixels.
    scale = _eighths(image.shape[0], height) if height > width else _eighths(image.shape[1], width)
    step_x, step_y = scale * width / jitter.scaled[1], scale * height / jitter.scaled[0]
    first_x, first_y = jitter.corner[0] + 0.5, jitter.corner[1] + 0.5
    if jitter.flip:
        first_x, step_x = first_x + jitter.size[1] - 1, -step_x
    inverse = np.array([[step_x, 0, abs(step_x) * first_x - 0.5], [0, step_y, step_y * first_y - 0.5]])
    rows, columns = jitter.size
    cv2.warpAffine(
        image,
        inverse,
        (columns, rows),
        dst=out[:rows, :columns],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _eighths(found: int, whole: int) -> float:
    """n / 8, where `found` is `whole` times that, rounded up; close to it for sides of less than 8 pixels."""
    return (8 * found // whole) / 8
