"""Makes the two views of a picture: all transforms in the released order, independently for each view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.views.colour import random_colour
from trackmill.pipeline.loader.views.geometry import padded, random_affine, random_crop, random_flip, random_resize
from trackmill.pipeline.loader.views.mixing import mix_up, occlude
from trackmill.pipeline.loader.views.settings import ViewSettings
from trackmill.pipeline.loader.views.view import View, visible_share
from trackmill.schemas.boxes import Boxes


def make_pair(
    picture: NDArray[np.uint8],
    boxes: Boxes,
    ids: NDArray[np.int64],
    rng: np.random.Generator,
    settings: ViewSettings,
    partner: View | None = None,
    other_frame: View | None = None,
) -> tuple[View, View]:
    """Two views of a picture; objects that are in both have the same id in both.

    Order, as released (configs/masa-gdino, the only training configuration): affine, MixUp, colour, resize, crop,
    flip, pad, removal of small boxes. Trackmill adds patches before these, and jitter of boxes after the flip.

    Args:
        picture: (H, W, 3) uint8 RGB.
        boxes: (G, 4) float32 `xyxy` within the picture.
        ids: (G,) int64, each above 0 and different, or 0 for objects without a partner in the other view.
        rng: source of all randomness.
        settings: see `ViewSettings`.
        partner: the second picture of MixUp and of patches, the same for both views; its ids are raised above those
            of the picture. None: no MixUp and no patches.
        other_frame: what the second view is made of, where it is not the picture; the same objects have the same ids.

    Returns:
        Two views of `size` x `size` pixels; each may have no objects, and they may share none.
    """
    view = View(image=picture, boxes=np.asarray(boxes, np.float32), ids=np.asarray(ids, np.int64))
    other = view if other_frame is None else other_frame
    if partner is not None:
        above = max(0, int(view.ids.max(initial=0)), int(other.ids.max(initial=0)))
        partner = replace(partner, ids=np.where(partner.ids > 0, partner.ids + above, partner.ids))
    mixes = bool(rng.random() < settings.mixup)
    first = make_view(view, partner, mixes, rng, settings)
    return first, make_view(other, partner, mixes, rng, settings)


def make_view(view: View, partner: View | None, mixes: bool, rng: np.random.Generator, settings: ViewSettings) -> View:
    """One random view, see `make_pair`; `mixes` applies MixUp."""
    if partner is not None:
        view = occlude(view, partner, rng, settings)
    view = random_affine(view, rng, settings)
    if partner is not None and mixes:
        view = mix_up(view, partner, rng, settings)
    view = random_colour(view, rng, settings)
    view = random_resize(view, rng, settings)
    view = random_crop(view, rng, settings)
    view = random_flip(view, rng, settings)
    view = jitter_boxes(view, rng, settings.box_jitter)
    view = select(view, settings)
    return padded(view, settings.size, settings.size, settings.border)


def jitter_boxes(view: View, rng: np.random.Generator, share: float) -> View:
    """Move every side of each box by up to `share` of the box's width or height, drawn uniformly."""
    if not share:
        return view
    sides = np.tile(view.boxes[:, 2:] - view.boxes[:, :2], 2)
    moved = view.boxes + sides * rng.uniform(-share, share, view.boxes.shape)
    return replace(view, boxes=moved.astype(np.float32))


def select(view: View, settings: ViewSettings) -> View:
    """Drop boxes that are too small or too little in view, and clip the rest if `clip` is set."""
    clipped = view.clipped()
    boxes = clipped if settings.clip else view.boxes
    kept = (boxes[:, 2:] - boxes[:, :2] > settings.min_side).all(axis=1)
    kept &= visible_share(view.boxes, clipped) >= settings.min_visible
    return replace(view, boxes=boxes).keep(kept)
