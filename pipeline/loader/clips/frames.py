"""Which frames of a clip are used: at a constant stride, or at random."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray


def choose_frames(
    annotated: NDArray[np.int64],
    count: int,
    sampling: Literal["uniform", "random"],
    span: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """T of the annotated frames, sorted; all of them where there are no more than T.

    Args:
        annotated: (A,) sorted places of the frames that have boxes with identities.
        count: T.
        sampling: `uniform` (ScaleTrack, A.1): every so many-th annotated frame from a random start; `random` (table
            19): without replacement.
        span: the uniform stride is max(1, A // span), shortened until T frames fit.
        rng: source of randomness.
    """
    total = len(annotated)
    if total <= count:
        return annotated
    if sampling == "random":
        return annotated[np.sort(rng.choice(total, count, replace=False))]
    stride = uniform_stride(total, count, span)
    start = int(rng.integers(total - (count - 1) * stride))
    return annotated[start : start + (count - 1) * stride + 1 : stride]


def uniform_stride(total: int, count: int, span: int) -> int:
    """The stride at which `count` of `total` frames are taken; both at least 2, `count` the smaller."""
    return min(max(1, total // span), (total - 1) // (count - 1))
