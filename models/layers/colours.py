"""Colours of a picture as a map: how much of each of 80 soft colours there is in a square of 4 x 4 pixels.

A mean over such cells is a soft histogram, so a region's colours can be pooled as any other map is. Bins are soft: a
pixel between two of them counts for both, so that a small change of light moves little from bin to bin.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE = 4
"""Pixels per cell, along each side."""

_GRAY = (10.0, 230.0, 5)
_RED_GREEN = (-45.0, 45.0, 4)
_BLUE_YELLOW = (-45.0, 45.0, 4)
"""First and last centre of the bins and their number: of the mean of R, G, B; of R - G; of B - (R + G) / 2. What lies
beyond counts for the last one: the colours of real scenes are pale."""

CHANNELS = _GRAY[2] * _RED_GREEN[2] * _BLUE_YELLOW[2]
"""Number of soft colours."""


def colour_map(images: Tensor) -> Tensor:
    """Shares of the soft colours in each cell; those of a cell sum to 1.

    Args:
        images: (B, 3, H, W) float, R, G, B in 0..255; H and W are multiples of `STRIDE`.

    Returns:
        (B, `CHANNELS`, H / 4, W / 4) of the same dtype.
    """
    # Pairs of pixels first: a quarter of the work, and noise of single pixels is gone.
    red, green, blue = F.avg_pool2d(images, 2).unbind(dim=1)
    gray = _soft((red + green + blue) / 3, *_GRAY)
    across = _soft(red - green, *_RED_GREEN)
    down = _soft(blue - (red + green) / 2, *_BLUE_YELLOW)
    hues = (across[:, :, None] * down[:, None]).flatten(1, 2)  # (B, 16, H / 2, W / 2)
    colours = (gray[:, :, None] * hues[:, None]).flatten(1, 2)
    return F.avg_pool2d(colours, STRIDE // 2)


def _soft(values: Tensor, first: float, last: float, count: int) -> Tensor:
    """(B, H, W) to shares (B, count, H, W) of the two nearest of `count` evenly spaced centres."""
    step = (last - first) / (count - 1)
    places = (values.clamp(first, last) - first) / step
    centres = torch.arange(count, dtype=values.dtype, device=values.device).view(1, count, 1, 1)
    return (1 - (places[:, None] - centres).abs()).clamp(min=0)
