"""Positions of the detector: sine embeddings of maps with padding and of anchors, and the inverse sigmoid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trackmill.models.layers.sine import sine


def inverse_sigmoid(values: Tensor, clamp: float) -> Tensor:
    """Logits of numbers in 0..1, which are clipped to 0..1; distances to 0 and 1 below `clamp` count as `clamp`."""
    inside = values.clamp(0, 1)
    return torch.log(inside.clamp(min=clamp) / (1 - inside).clamp(min=clamp))


def level_masks(masks: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Padding of each map: that of the nearest pixel above and to the left, as in the published code.

    Args:
        masks: (B, H, W) bool, True where a pixel is padding.
        shapes: height and width of each map.

    Returns:
        (B, h, w) bool each.
    """
    floats = masks[:, None].float()
    return [F.interpolate(floats, size=shape, mode="nearest")[:, 0] > 0.5 for shape in shapes]


def cell_coordinates(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the cells of a map in 0..1 of the part that is no padding: y and x, (B, h, w) float32 each.

    Args:
        mask: (B, h, w) bool, True where it is padding. In padding, the numbers go on as those of the last cell.
    """
    valid = (~mask).float()
    rows, columns = valid.cumsum(1), valid.cumsum(2)
    return (rows - 0.5) / (rows[:, -1:] + 1e-6), (columns - 0.5) / (columns[:, :, -1:] + 1e-6)


def map_embedding(mask: Tensor, width: int, temperature: float) -> Tensor:
    """Sine embedding of the cells of a map: first half y, second half x.

    Args:
        mask: (B, h, w) bool, True where it is padding.
        width: D of the embedding, a multiple of 4.
        temperature: see `trackmill.models.ipmot.sizes.DetectorSizes`.

    Returns:
        (B, h, w, D) float32.
    """
    y, x = cell_coordinates(mask)
    return sine(torch.stack([y, x], dim=-1), width // 2, temperature)


def anchor_embedding(boxes: Tensor, width: int, order: tuple[int, int, int, int]) -> Tensor:
    """Sine embedding of boxes with temperature 10000, half of `width` for each of the four numbers.

    Args:
        boxes: (..., 4) float, cx, cy, w, h in 0..1.
        width: D, a multiple of 4.
        order: which of the four numbers stands first, second, ...

    Returns:
        (..., 2 D) float32.
    """
    return sine(torch.stack([boxes[..., index] for index in order], dim=-1), width // 2)


def valid_ratios(masks: list[Tensor]) -> Tensor:
    """The share of the width and of the height of each map that is no padding: (B, L, 2) float32, x and y.

    Args:
        masks: (B, h, w) bool each, True where it is padding; padding lies to the right and below.
    """
    return torch.stack(
        [torch.stack([(~mask[:, 0]).float().mean(1), (~mask[:, :, 0]).float().mean(1)], dim=-1) for mask in masks],
        dim=1,
    )
