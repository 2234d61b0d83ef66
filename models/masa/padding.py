"""Makes the batch that a variant's network takes from pictures of any size: normalises, then pads with zeros."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trackmill.models.masa.variants import Variant


def normalise_and_pad(images: Tensor, variant: Variant) -> Tensor:
    """Subtract the mean, divide by the standard deviation, then pad right and below with zeros (released preprocessor).

    Zero after normalisation is the mean colour, not black. Nothing is resized.

    Args:
        images: (B, 3, H, W) float, R, G, B in 0..255.
        variant: gives mean, standard deviation and `pad_divisor`.

    Returns:
        (B, 3, H', W') of the same dtype; H' and W' are multiples of `variant.pad_divisor`.

    Raises:
        ValueError: the images have another shape or dtype, or are larger than the variant's fixed input.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"images must have the shape (B, 3, H, W) with at least one pixel, not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be float with values in 0..255, not {images.dtype}: call .float() on them")
    height, width = images.shape[-2:]
    if variant.input_side and max(height, width) > variant.input_side:
        raise ValueError(
            f"images of {height} x {width} pixels (height x width) do not fit {variant.name}, which takes at most "
            f"{variant.input_side} x {variant.input_side}: shrink them, and the boxes with them"
        )
    mean = images.new_tensor(variant.mean).view(3, 1, 1)
    std = images.new_tensor(variant.std).view(3, 1, 1)
    right, below = -width % variant.pad_divisor, -height % variant.pad_divisor
    return F.pad((images - mean) / std, (0, right, 0, below))
