"""Transforms that need a second picture: MixUp, and patches pasted over objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trackmill.pipeline.loader.views import pixels
from trackmill.pipeline.loader.views.geometry import cropped, mirrored, padded, scaled
from trackmill.pipeline.loader.views.settings import ViewSettings
from trackmill.pipeline.loader.views.view import View
from trackmill.schemas.boxes import box_areas

MIXUP_FLIP = 0.5
"""Probability that the blended-in picture is mirrored, as released."""

OCCLUDER_SIDES = (0.2, 0.5)
"""Smallest and largest side of a patch, relative to the object that it is pasted over."""

MAX_COVERED = 0.5
"""Objects are dropped if patches cover more than this share of their box."""


def mix_up(view: View, partner: View, rng: np.random.Generator, settings: ViewSettings) -> View:
    """Blend a second picture in, half and half, and add its objects (Zhang et al., "mixup", ICLR 2018; as in YOLOX).

    The partner is fitted into a square of `size`, scaled by a random factor, mirrored or not, and cut or enlarged
    with black to the first picture's size; its boxes may leave it. A partner without objects changes nothing.

    Args:
        view: the picture.
        partner: the other one; its ids must be different from those of `view`.
        rng: source of randomness.
        settings: `size`, `mixup_scale`, `border`.
    """
    if not len(partner.ids):
        return view
    size = settings.size
    fit = min(size / partner.height, size / partner.width)
    other = scaled(partner, max(1, int(partner.height * fit)), max(1, int(partner.width * fit)))
    side = max(1, int(size * rng.uniform(*settings.mixup_scale)))
    other = scaled(padded(other, size, size, settings.border), side, side)
    if rng.random() < MIXUP_FLIP:
        other = mirrored(other)
    other = padded(other, max(side, view.height), max(side, view.width), 0)
    x = int(rng.integers(other.width - view.width + 1))
    y = int(rng.integers(other.height - view.height + 1))
    other = cropped(other, x, y, view.height, view.width)
    return View(
        image=pixels.blend(view.image, other.image),
        boxes=np.concatenate([view.boxes, other.boxes]),
        ids=np.concatenate([view.ids, other.ids]),
    ).inside()


def occlude(view: View, partner: View, rng: np.random.Generator, settings: ViewSettings) -> View:
    """Paste up to `occluders` rectangles cut out of a second picture, each over a part of a random object.

    A patch is not an object. Objects that patches cover by more than `MAX_COVERED` are dropped.

    Args:
        view: the picture.
        partner: the picture that patches are cut out of.
        rng: source of randomness.
        settings: `occluders`.
    """
    count = int(rng.integers(settings.occluders + 1))
    if not count or not len(view.ids):
        return view
    image = view.image.copy()
    covered = np.zeros(len(view.ids))
    for target in view.clipped()[rng.integers(len(view.ids), size=count)].tolist():
        sides = rng.uniform(*OCCLUDER_SIDES, 2) * (target[2] - target[0], target[3] - target[1])
        width, height = (max(1, int(side)) for side in sides)
        width, height = min(width, view.width, partner.width), min(height, view.height, partner.height)
        centre = rng.uniform(target[:2], target[2:])
        x = int(np.clip(centre[0] - width / 2, 0, view.width - width))
        y = int(np.clip(centre[1] - height / 2, 0, view.height - height))
        from_x = int(rng.integers(partner.width - width + 1))
        from_y = int(rng.integers(partner.height - height + 1))
        image[y : y + height, x : x + width] = partner.image[from_y : from_y + height, from_x : from_x + width]
        low = np.maximum(view.boxes[:, :2], (x, y))
        high = np.minimum(view.boxes[:, 2:], (x + width, y + height))
        covered += np.clip(high - low, 0, None).prod(axis=1)
    kept = covered <= MAX_COVERED * np.maximum(box_areas(view.boxes), 1e-6)
    return replace(view, image=image).keep(kept)
