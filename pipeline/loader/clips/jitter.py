"""Large-scale jitter of a clip: one scale, one crop and one flip for all of its frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.clips.settings import ClipSettings
from trackmill.pipeline.loader.views.view import visible_share
from trackmill.schemas.boxes import Boxes, clip_boxes


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Where a frame goes: it is scaled, a part of it is cut out, and that part is mirrored or not.

    Args:
        scaled: height and width of the whole frame after scaling.
        corner: x and y of the part's upper left corner in the scaled frame.
        size: height and width of the part.
        flip: whether the part is mirrored from left to right.
    """

    scaled: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]
    flip: bool

    def boxes(self, boxes: Boxes, height: int, width: int) -> Boxes:
        """Boxes (N, 4) of a frame of `height` x `width` pixels, in pixels of the part; they may leave it."""
        factors = np.array([self.scaled[1] / width, self.scaled[0] / height] * 2)
        moved = boxes * factors - np.array(self.corner * 2)
        if self.flip:
            moved = self.size[1] * np.array([1, 0, 1, 0]) + moved[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1])
        placed: Boxes = moved.astype(np.float32)
        return placed


def draw_jitter(
    height: int, width: int, centres: NDArray[np.floating], rng: np.random.Generator, settings: ClipSettings
) -> Jitter:
    """A random jitter of frames of `height` x `width` pixels that shows one of the points `centres`.

    The position of the crop is drawn among all, and once more among those that show a random one of the points where
    the first shows none. Without points any crop will do.

    Args:
        height, width: of the frames.
        centres: (K, 2) x and y in their pixels.
        rng: source of randomness.
        settings: `size`, `resize`, `flip`.
    """
    factor = settings.size * rng.uniform(*settings.resize) / max(height, width)
    scaled = max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))
    size = min(settings.size, scaled[0]), min(settings.size, scaled[1])
    corner = tuple(int(rng.integers(whole - part + 1)) for whole, part in zip(scaled[::-1], size[::-1]))
    if len(centres):
        points = centres * (scaled[1] / width, scaled[0] / height)
        inside = (points >= corner) & (points < np.add(corner, size[::-1]))
        if not inside.all(axis=1).any():
            point = points[rng.integers(len(points))].tolist()
            corner = tuple(_showing(*each, rng) for each in zip(point, size[::-1], scaled[::-1]))
    return Jitter(scaled=scaled, corner=(corner[0], corner[1]), size=size, flip=bool(rng.random() < settings.flip))


def in_view(boxes: Boxes, size: tuple[int, int], settings: ClipSettings) -> tuple[Boxes, NDArray[np.bool_]]:
    """Boxes (N, 4) as they are given to the network, and which of them (N,) show enough.

    Args:
        boxes: in pixels of a part of `size` height and width; they may leave it.
        size: see `Jitter`.
        settings: `clip`, `min_visible`, `min_side`.
    """
    clipped = clip_boxes(boxes, *size)
    sides = clipped[:, 2:] - clipped[:, :2]
    enough = ((sides >= settings.min_side) & (sides > 0)).all(axis=1)
    enough &= visible_share(boxes, clipped) >= settings.min_visible
    return (clipped if settings.clip else boxes), enough


def _showing(point: float, side: int, length: int, rng: np.random.Generator) -> int:
    """A random offset in 0..length - side at which a part of `side` pixels shows the pixel at `point`."""
    pixel = min(max(int(point), 0), length - 1)
    return int(rng.integers(max(0, pixel - side + 1), min(pixel, length - side) + 1))
