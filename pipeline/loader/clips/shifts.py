"""A picture as a short video: a view that moves over it steadily."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_shifts(
    height: int, width: int, count: int, most: int, rng: np.random.Generator
) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """The size of a view and its corner in each of T copies of a picture.

    The view moves by the same number of pixels from each copy to the next, -most..most along either axis, and stays
    inside of the picture: it is smaller by the whole way. (MeMOTR moves the picture out of the frame and stretches what
    is left.) The way is at most half of the picture, which shortens the steps of small pictures and long clips.

    Args:
        height, width: of the picture.
        count: T.
        most: most pixels from one copy to the next.
        rng: source of randomness.

    Returns:
        Height and width of the view, and (T, 2) int64 x and y of its upper left corner.
    """
    moves = max(1, count - 1)
    step = np.array([_step(side, moves, most, rng) for side in (width, height)])
    corners = step * np.arange(count)[:, None]
    corners -= corners.min(axis=0)
    across, down = (np.abs(step) * (count - 1)).tolist()
    return (height - down, width - across), corners


def _step(side: int, moves: int, most: int, rng: np.random.Generator) -> int:
    limit = min(most, side // (2 * moves))
    return int(rng.integers(-limit, limit + 1))
