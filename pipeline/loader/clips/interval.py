"""Which frames of a stored clip are used: T of them at one interval, which is drawn in frames of the source video."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def choose_at_interval(
    indices: NDArray[np.int64], count: int, interval: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """T places at one interval, sorted; all places where there are no more than T.

    The interval comes first, uniform over those between the limits that the stored frames have, and shortened to the
    longest one that T frames fit in. Then the start is drawn among all at which they fit. (MeMOTR draws the start
    first. In samples of a few dozen frames, which are not whole sequences, that would shorten most intervals and use
    the last frame far more often than any other.)

    Args:
        indices: (A,) numbers in the source video of the frames that can be used, rising. Where every n-th is stored,
            intervals are multiples of n; where even n is beyond the longest interval, neighbours are taken.
        count: T, at least 1.
        interval: shortest and longest, in frames of the source video.
        rng: source of randomness.

    Returns:
        (T,) int64, places in `indices`.
    """
    total = len(indices)
    if total <= count:
        return np.arange(total)
    if count == 1:
        return rng.integers(total, size=1)
    distance = max(1, int(np.diff(indices).min()))
    fewest = max(1, -(-interval[0] // distance))
    most = max(fewest, interval[1] // distance)
    step = min(int(rng.integers(fewest, most + 1)), (total - 1) // (count - 1))
    start = int(rng.integers(total - (count - 1) * step))
    return np.arange(start, start + (count - 1) * step + 1, step)
