"""Transforms that move pixels and boxes: affine, resize, crop, flip, pad."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.views import pixels
from trackmill.pipeline.loader.views.settings import ViewSettings
from trackmill.pipeline.loader.views.view import View
from trackmill.schemas.boxes import Boxes, box_areas


def random_affine(view: View, rng: np.random.Generator, settings: ViewSettings) -> View:
    """Scale, rotate, shear and translate within the frame; boxes are clipped to it, and dropped if outside.

    A box becomes the smallest upright box around its four moved corners (released: mmdetection's `RandomAffine`, which
    treats integer coordinates as pixel centres and so is off by half a pixel at most).
    """
    matrix = affine_matrix(view.height, view.width, rng, settings)
    if np.allclose(matrix, np.eye(3)):
        return view
    image = pixels.warp(view.image, matrix, settings.border)
    moved = View(image=image, boxes=move_boxes(view.boxes, matrix), ids=view.ids)
    return replace(moved, boxes=moved.clipped()).inside()


def affine_matrix(height: int, width: int, rng: np.random.Generator, settings: ViewSettings) -> NDArray[np.float64]:
    """(3, 3) from old to new coordinates: translation x shear x rotation x scale."""
    angle = math.radians(rng.uniform(-settings.rotate, settings.rotate))
    scale = rng.uniform(*settings.scale)
    slant = np.tan(np.radians(rng.uniform(-settings.shear, settings.shear, 2)))
    shift = rng.uniform(-settings.translate, settings.translate, 2) * (width, height)
    turned = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = np.array([[1, slant[0]], [slant[1], 1]]) @ turned
    matrix[:2, 2] = shift
    if settings.about_centre:
        centre = np.array([width / 2, height / 2])
        matrix[:2, 2] += centre - matrix[:2, :2] @ centre
    return matrix


def move_boxes(boxes: Boxes, matrix: NDArray[np.float64]) -> Boxes:
    """The smallest upright boxes around boxes (G, 4) moved by `matrix` (3, 3)."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)
    moved = corners @ matrix[:2, :2].T + matrix[:2, 2]  # (G, 4, 2)
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1).astype(np.float32)


def scaled(view: View, height: int, width: int) -> View:
    """The view at another size; boxes are scaled by the exact factor of each axis."""
    factors = np.array([width / view.width, height / view.height] * 2)
    return View(
        image=pixels.resize(view.image, height, width), boxes=(view.boxes * factors).astype(np.float32), ids=view.ids
    )


def random_resize(view: View, rng: np.random.Generator, settings: ViewSettings) -> View:
    """Large-scale jitter: the longer side becomes `size` times a uniformly drawn factor; the aspect ratio is kept."""
    factor = settings.size * rng.uniform(*settings.resize) / max(view.height, view.width)
    return scaled(view, max(1, int(view.height * factor + 0.5)), max(1, int(view.width * factor + 0.5)))


def random_crop(view: View, rng: np.random.Generator, settings: ViewSettings) -> View:
    """A crop of at most `size` x `size` pixels with an object in it, if there is any; boxes may extend beyond it.

    If the first random crop shows no object, another is drawn among those that show the centre of a random one. (The
    released code draws another picture then.)
    """
    height, width = min(settings.size, view.height), min(settings.size, view.width)
    x, y = _offset(rng, view.width - width), _offset(rng, view.height - height)
    if not len(cropped(view, x, y, height, width).ids):
        seen = np.flatnonzero(box_areas(view.clipped()) > 0)
        if len(seen):
            x0, y0, x1, y1 = view.clipped()[rng.choice(seen)].tolist()
            x = _showing((x0 + x1) / 2, width, view.width, rng)
            y = _showing((y0 + y1) / 2, height, view.height, rng)
    return cropped(view, x, y, height, width)


def cropped(view: View, x: int, y: int, height: int, width: int) -> View:
    """The crop of `height` x `width` pixels with upper left corner (x, y), and the objects that overlap it."""
    image = pixels.crop(view.image, x, y, height, width)
    boxes = view.boxes - np.array([x, y, x, y], np.float32)
    return View(image=image, boxes=boxes, ids=view.ids).inside()


def mirrored(view: View) -> View:
    """The view flipped horizontally."""
    boxes = view.boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32)
    boxes += np.array([view.width, 0, view.width, 0], np.float32)
    return View(image=pixels.mirror(view.image), boxes=boxes, ids=view.ids)


def random_flip(view: View, rng: np.random.Generator, settings: ViewSettings) -> View:
    """Flip horizontally with probability `flip`."""
    return mirrored(view) if rng.random() < settings.flip else view


def padded(view: View, height: int, width: int, border: int) -> View:
    """Pad to the right and below; boxes do not change."""
    return replace(view, image=pixels.pad(view.image, height, width, border))


def _offset(rng: np.random.Generator, room: int) -> int:
    return int(rng.integers(room + 1))


def _showing(point: float, side: int, length: int, rng: np.random.Generator) -> int:
    """A random offset in 0..length - side at which a crop of `side` pixels shows the pixel at `point`."""
    pixel = min(int(point), length - 1)
    return int(rng.integers(max(0, pixel - side + 1), min(pixel, length - side) + 1))
