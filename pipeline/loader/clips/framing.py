"""Which part of each frame is shown, how large, and whether mirrored: one draw for all frames of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.clips.pixels import ALIASES
from trackmill.pipeline.loader.clips.query_settings import QueryClipSettings
from trackmill.schemas.boxes import Boxes


@dataclass(frozen=True, kw_only=True)
class Framing:
    """A part of a frame that is cut out, scaled once, and mirrored or not.

    Args:
        corner: x and y of the part's upper left corner, in whole pixels of the stored frame.
        part: its height and width, likewise.
        size: height and width that it is scaled to.
        flip: whether it is mirrored from left to right.
    """

    corner: tuple[int, int]
    part: tuple[int, int]
    size: tuple[int, int]
    flip: bool

    def enough(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a frame of `height` x `width` pixels may be decoded, so that nothing is lost."""
        tall, wide = (-(-whole * out // part) for whole, out, part in zip((height, width), self.size, self.part))
        return tall, wide

    def boxes(self, boxes: Boxes) -> tuple[Boxes, NDArray[np.bool_]]:
        """Boxes (G, 4) of the stored frame in pixels of what is shown, which they may leave, and who is in view (G,).

        Nobody is in view of whom nothing is; a box without an area shows nothing either.
        """
        factors = np.array([self.size[1] / self.part[1], self.size[0] / self.part[0]] * 2)
        moved = (boxes.astype(np.float64) - np.array(self.corner * 2)) * factors
        if self.flip:
            moved = self.size[1] * np.array([1, 0, 1, 0]) + moved[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1])
        placed: Boxes = moved.astype(np.float32)
        limit = np.array(self.size[::-1], np.float32)
        low, high = np.maximum(placed[:, :2], 0), np.minimum(placed[:, 2:], limit)
        in_view: NDArray[np.bool_] = np.logical_and.reduce(low < high, axis=1)
        return placed, in_view

    def pixels(self, image: NDArray[np.uint8], height: int, out: NDArray[np.uint8]) -> None:
        """Write what is shown of a frame.

        Args:
            image: (h, w, 3) uint8, the frame as decoded, at its own size or at a number of eighths of it.
            height: of the stored frame.
            out: (H, W, 3) uint8, of `size`.
        """
        eighths = max(1, round(8 * image.shape[0] / height))
        (x, y), (tall, wide), (rows, columns) = self.corner, self.part, self.size
        edges = [each * eighths / 8 for each in (x, y, x + wide, y + tall)]
        across, down = (edges[2] - edges[0]) / columns, (edges[3] - edges[1]) / rows
        shrinks = max(across, down) > ALIASES
        if all(edge.is_integer() for edge in edges):
            x0, y0, x1, y1 = map(int, edges)
            smooth = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            cv2.resize(image[y0:y1, x0:x1], (columns, rows), dst=out, interpolation=smooth)
        else:  # decoded smaller, and an edge lies inside of a pixel
            if shrinks:
                smaller = max(1, round(image.shape[1] / across)), max(1, round(image.shape[0] / down))
                factors = smaller[0] / image.shape[1], smaller[1] / image.shape[0]
                image = np.asarray(cv2.resize(image, smaller, interpolation=cv2.INTER_AREA), image.dtype)
                edges = [edge * factor for edge, factor in zip(edges, factors * 2)]
                across, down = across * factors[0], down * factors[1]
            matrix = np.array([[across, 0, edges[0] + across / 2 - 0.5], [0, down, edges[1] + down / 2 - 0.5]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            cv2.warpAffine(image, matrix, (columns, rows), dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        if self.flip:
            cv2.flip(out, 1, dst=out)


def draw_framing(height: int, width: int, settings: QueryClipSettings, rng: np.random.Generator) -> Framing:
    """A random framing of frames of `height` x `width` pixels.

    Either they are scaled, or scaled, cropped and scaled again, as DETR's training does; here both scalings are one,
    from the stored pixels to the last size.

    Args:
        height, width: of the frames.
        settings: `flip`, `resize`, `longest`, `crop_share`, `before_crop`, `crop`.
        rng: source of randomness.
    """
    flip = bool(rng.random() < settings.flip)
    part, corner = (height, width), (0, 0)
    if rng.random() < settings.crop_share:
        before = _one_of(settings.before_crop, rng)
        factor = before / min(height, width) if before else 1.0
        part = (_side(height, factor, settings.crop, rng), _side(width, factor, settings.crop, rng))
        corner = (int(rng.integers(width - part[1] + 1)), int(rng.integers(height - part[0] + 1)))
    return Framing(
        corner=corner, part=part, size=_scaled(part, _one_of(settings.resize, rng), settings.longest), flip=flip
    )


def _one_of(sides: tuple[int, ...], rng: np.random.Generator) -> int:
    return sides[int(rng.integers(len(sides)))] if sides else 0


def _side(whole: int, factor: float, limits: tuple[int, int], rng: np.random.Generator) -> int:
    """A side of the crop in stored pixels, where the frame is cropped after scaling it by `factor`."""
    scaled = max(1, round(whole * factor))
    least, most = min(limits[0], scaled), min(limits[1], scaled)
    return max(1, min(whole, round(int(rng.integers(least, most + 1)) / factor)))


def _scaled(part: tuple[int, int], shorter: int, longest: int) -> tuple[int, int]:
    """Height and width for a part whose shorter side becomes `shorter` (0: stays); the longer is at most `longest`."""
    factor = shorter / min(part) if shorter else 1.0
    factor = min(factor, longest / max(part))
    height, width = (max(1, round(side * factor)) for side in part)
    return height, width
