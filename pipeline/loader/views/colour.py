"""Transforms that change colours but move no pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trackmill.pipeline.loader.views import pixels
from trackmill.pipeline.loader.views.settings import ViewSettings
from trackmill.pipeline.loader.views.view import View


def random_colour(view: View, rng: np.random.Generator, settings: ViewSettings) -> View:
    """Shift hue, saturation and brightness, each with probability 1/2 (released: YOLOX's); then contrast and blur.

    Random numbers are drawn for all of them, so that each setting changes only its own effect.
    """
    limits = (settings.hue, settings.saturation, settings.value)
    shifts = (rng.uniform(-1, 1, 3) * limits * rng.integers(0, 2, 3)).astype(int)  # towards zero, as released
    factor = 1 + settings.contrast * rng.uniform(-1, 1)
    deviation = settings.blur * rng.random()
    image = pixels.shift_hsv(view.image, *shifts.tolist())
    return replace(view, image=pixels.blur(pixels.contrast(image, factor), deviation))
