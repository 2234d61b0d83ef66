"""Transforms that change colours but move no pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.views import pixels
from trackmill.pipeline.loader.views.settings import ViewSettings
from trackmill.pipeline.loader.views.view import View


class ColourLimits(Protocol):
    """Largest changes, as `ViewSettings` describes them."""

    @property
    def hue(self) -> int: ...
    @property
    def saturation(self) -> int: ...
    @property
    def value(self) -> int: ...
    @property
    def contrast(self) -> float: ...
    @property
    def blur(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Colour:
    """One change of colours, for as many pictures as there are.

    Args:
        shifts: of hue, saturation and brightness, see `trackmill.pipeline.loader.views.pixels.shift_hsv`.
        contrast: factor of the difference to a picture's mean grey level.
        deviation: sigma of the blur in pixels.
    """

    shifts: tuple[int, int, int]
    contrast: float
    deviation: float

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB with other colours."""
        return pixels.blur(pixels.contrast(pixels.shift_hsv(image, *self.shifts), self.contrast), self.deviation)


def draw_colour(rng: np.random.Generator, limits: ColourLimits) -> Colour:
    """Shift hue, saturation and brightness, each with probability 1/2 (released: YOLOX's); then contrast and blur.

    Random numbers are drawn for all of them, so that each setting changes only its own effect.
    """
    most = (limits.hue, limits.saturation, limits.value)
    hue, saturation, value = (rng.uniform(-1, 1, 3) * most * rng.integers(0, 2, 3)).astype(int).tolist()  # as released
    factor = 1 + limits.contrast * rng.uniform(-1, 1)
    return Colour(shifts=(hue, saturation, value), contrast=factor, deviation=limits.blur * rng.random())


def random_colour(view: View, rng: np.random.Generator, settings: ViewSettings) -> View:
    """The view in random colours, see `draw_colour`."""
    return replace(view, image=draw_colour(rng, settings)(view.image))
