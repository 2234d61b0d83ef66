"""One change of colours for all frames of a clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trackmill.pipeline.loader.views.colour import ColourLimits

Recolour = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""(H, W, 3) uint8 RGB to the same in other colours."""


def draw_recolour(rng: np.random.Generator, limits: ColourLimits) -> Recolour | None:
    """A change for the whole clip; None where the recipe wants none, which then needs no package for it."""
    if not (limits.hue or limits.saturation or limits.value or limits.contrast or limits.blur):
        return None
    from trackmill.pipeline.loader.views.colour import draw_colour

    return draw_colour(rng, limits)
