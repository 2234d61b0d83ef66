"""The small pictures that cuts are looked for in: 27 x 48 pixels say enough of a frame, and a clip of them is light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 27, 48
"""Of TransNet V2's input; a frame is stretched to it, whatever its own shape."""


_FLAT = 2.5
"""Standard deviation of the levels of a frame below which it shows nothing."""


def small_frame(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame (H, W, 3) uint8 RGB as (27, 48, 3) uint8, antialiased."""
    small = Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(small, np.uint8)


def flat_frames(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(T,) which frames (T, 27, 48, 3) show nothing, being of one level: black between two shots, or a flash."""
    flat: NDArray[np.bool_] = frames.reshape(len(frames), -1).std(axis=1) < _FLAT
    return flat
