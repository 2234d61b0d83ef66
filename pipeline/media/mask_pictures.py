"""Masks that are stored as pictures: one object a file, or all objects of a frame as numbers in place of colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.pictures import load_pixels, open_picture


def decode_mask_picture(data: bytes, name: str, *, max_pixels: int) -> NDArray[np.bool_]:
    """(H, W) bool mask of a picture: every pixel that is neither zero (of a palette, not entry zero) nor transparent.

    Where colours are zero everywhere, transparency draws the mask, if anything does.

    Raises:
        PixelLimit, TruncatedMedia, BadItem: as `trackmill.pipeline.media.pictures.decode_picture`.
    """
    colours, alpha, _ = _planes(data, name, max_pixels)
    inside: NDArray[np.bool_] = (colours != 0).any(axis=2)
    if alpha is None:
        return inside
    visible: NDArray[np.bool_] = alpha != 0
    if not inside.any():
        return visible if not visible.all() else inside
    return inside & visible


def decode_label_picture(data: bytes, name: str, *, max_pixels: int) -> tuple[NDArray[np.int64], bool]:
    """(H, W) numbers of a picture whose pixels say which object they belong to, 0 for none.

    A palette picture gives its entries and a gray one its levels, of 8 or 16 bits; transparent pixels are 0. Colours
    count only where they are gray.

    Returns:
        The numbers, and whether the picture has a palette.

    Raises:
        BadItem: (or a subclass) broken, or in colour: which object a colour stands for is not known.
    """
    colours, alpha, palette = _planes(data, name, max_pixels)
    if colours.shape[2] > 1 and not (colours == colours[:, :, :1]).all():
        raise BadItem(
            f"{name}: the mask is in colour, and which object a colour stands for is not known; save it with a palette "
            "or as gray levels, one number an object"
        )
    labels = colours[:, :, 0].astype(np.int64)
    if alpha is not None:
        labels[alpha == 0] = 0
    return labels, palette


def _planes(data: bytes, name: str, max_pixels: int) -> tuple[NDArray[np.generic], NDArray[np.generic] | None, bool]:
    """(H, W, C) levels without transparency, (H, W) transparency if there is any, and whether there is a palette."""
    image = open_picture(data, name, max_pixels)
    load_pixels(image, data, name)
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    palette = image.mode in ("P", "PA")
    if image.getbands()[-1] in ("A", "a"):
        return pixels[:, :, :-1], pixels[:, :, -1], palette
    return pixels, None, palette
