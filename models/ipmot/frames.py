"""From pictures to what the network reads: resized, normalised, padded. Training and tracking both call this."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

DIVISOR = 32
"""Sides of the network's input are multiples of this many pixels: the stride of the last stage of a ResNet."""


def fitted(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width in pixels at which a picture is looked at; its shape is kept, up to a pixel.

    Args:
        height, width: of the picture.
        short_side: its shorter side becomes this long, larger or smaller than it is,
        long_side: unless its longer side would become longer than this: then that side becomes this long.
    """
    scale = min(short_side / min(height, width), long_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures at another size, as float RGB in 0..1.

    Args:
        images: (T, 3, H, W) uint8 RGB, or float in 0..1, on any device.
        size: height and width.

    Returns:
        (T, 3, *size) float32 on the same device; the very values where the size is the same.
    """
    values = images if images.is_floating_point() else images.float() / 255
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return F.interpolate(values, size, mode="bilinear", antialias=True, align_corners=False)


def network_input(
    images: Tensor, mean: Sequence[float], std: Sequence[float], divisor: int = DIVISOR
) -> tuple[Tensor, Tensor]:
    """Normalised pictures, padded right and below with zeros to the next multiple of `divisor`.

    Args:
        images: (T, 3, H, W) float RGB in 0..1, all of one size.
        mean, std: of R, G, B in 0..1: the backbone's.
        divisor: of the padded sides.

    Returns:
        (T, 3, H', W') float, and (T, H', W') bool, True where it is padding.
    """
    count, _, height, width = images.shape
    below, right = -height % divisor, -width % divisor
    normalised = (images - images.new_tensor(mean).view(3, 1, 1)) / images.new_tensor(std).view(3, 1, 1)
    masks = torch.zeros(count, height, width, dtype=torch.bool, device=images.device)
    return F.pad(normalised, (0, right, 0, below)), F.pad(masks, (0, right, 0, below), value=True)
