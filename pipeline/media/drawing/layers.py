"""Masks of a frame as pictures at any size: one label per pixel, outlines marked, small objects on top."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trackmill.pipeline.media.drawing.palette import RGB
from trackmill.schemas.masks import CroppedMask, Mask, decode_mask


@dataclass(frozen=True, slots=True)
class Ink:
    """How firmly masks are drawn: opacity of the inside and of the outline, 0..255."""

    fill: int
    edge: int


FAINT = Ink(30, 170)
"""For proposals, which may cover the whole frame: the picture must stay readable under them."""
FIRM = Ink(85, 235)
"""For annotated objects."""
_MAX_COLOURS = 127

Labels = NDArray[np.int32]
"""(H, W); 0 where there is nothing, i + 1 inside mask i, -(i + 1) on its outline."""


def label_map(masks: Sequence[CroppedMask | None], height: int, width: int, scale: float) -> Labels:
    """Paint the masks of a frame into one map.

    Args:
        masks: in pixels of the frame; None is left out.
        height, width: of the frame.
        scale: size of the map over size of the frame.

    Raises:
        ValueError: a mask is broken or leaves the frame.
    """
    map_height, map_width = max(1, round(height * scale)), max(1, round(width * scale))
    labels = np.zeros((map_height, map_width), np.int32)
    present = [(number, mask) for number, mask in enumerate(masks) if mask is not None]
    for number, crop in sorted(present, key=lambda entry: -entry[1].height * entry[1].width):
        rows = _sampled(crop.y, crop.height, map_height, height)
        columns = _sampled(crop.x, crop.width, map_width, width)
        if rows.size == 0 or columns.size == 0:
            continue
        small = decode_mask(crop, height, width)[np.ix_(rows[:, 1] - crop.y, columns[:, 1] - crop.x)]
        region = labels[rows[0, 0] : rows[-1, 0] + 1, columns[0, 0] : columns[-1, 0] + 1]
        region[small] = number + 1
        region[small & ~_inner(small)] = -(number + 1)
    return labels


def labels_rgba(labels: Labels, colours: Sequence[RGB], ink: Ink) -> NDArray[np.uint8]:
    """(H, W, 4) uint8: translucent fills with firmer outlines; mask i has colour i."""
    table = np.array([(0, 0, 0), *colours], np.uint8)
    alpha = np.where(labels > 0, ink.fill, np.where(labels < 0, ink.edge, 0)).astype(np.uint8)
    return np.dstack([table[np.abs(labels)], alpha])


def labels_png(labels: Labels, colours: Sequence[RGB], ink: Ink) -> bytes:
    """The same as a PNG with a palette, a few KB instead of a few hundred; colours beyond 127 are reused."""
    distinct = list(dict.fromkeys(colours))[:_MAX_COLOURS] or [(0, 0, 0)]
    slot_of = {colour: slot for slot, colour in enumerate(distinct)}
    slots = np.array([0, *(1 + slot_of.get(c, i % len(distinct)) for i, c in enumerate(colours))])
    index = slots[np.abs(labels)] + np.where(labels < 0, len(distinct), 0)
    image = Image.fromarray(index.astype(np.uint8), "P")
    image.putpalette(np.array([(0, 0, 0), *distinct, *distinct], np.uint8).tobytes())
    out = io.BytesIO()
    alphas = bytes([0] + [ink.fill] * len(distinct) + [ink.edge] * len(distinct))
    image.save(out, "PNG", transparency=alphas, optimize=True)
    return out.getvalue()


def _sampled(begin: int, length: int, map_length: int, frame_length: int) -> NDArray[np.int64]:
    """(n, 2): pixels of the map whose centre falls on the crop, and the pixel of the frame that lies there."""
    places = np.arange(map_length)
    pixels = ((places + 0.5) * frame_length / map_length).astype(np.int64)
    on = (pixels >= begin) & (pixels < begin + length)
    return np.stack([places[on], pixels[on]], axis=1)


def _inner(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
