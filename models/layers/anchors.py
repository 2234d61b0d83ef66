"""Anchors of the proposal head: three boxes around every cell of every level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SCALE = 8
"""Side of the square anchor in cells."""

RATIOS = (0.5, 1.0, 2.0)
"""Height over width; all anchors of a level have the same area."""


def level_anchors(
    heights_widths: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Anchors of each level, centred on the cells' upper left corners (offset 0, as released).

    Args:
        heights_widths: (H_l, W_l) of each level, in cells.
        strides: pixels per cell of each level.
        device: device of the anchors.

    Returns:
        For each level (H_l * W_l * 3, 4) float32, xyxy in pixels of the network's input, ordered by row, then cell,
        then ratio; `per_anchor` reads the head's maps in the same order.
    """
    height_factors = torch.tensor(RATIOS, device=device).sqrt()
    anchors = []
    for (height, width), stride in zip(heights_widths, strides):
        half_heights = 0.5 * (stride * height_factors * SCALE)
        half_widths = 0.5 * (stride * (1 / height_factors) * SCALE)
        shapes = torch.stack([-half_widths, -half_heights, half_widths, half_heights], dim=1)  # (3, 4)
        down, right = torch.meshgrid(
            torch.arange(height, device=device) * float(stride),
            torch.arange(width, device=device) * float(stride),
            indexing="ij",
        )
        corners = torch.stack([right, down, right, down], dim=-1)  # (H_l, W_l, 4)
        anchors.append((corners[:, :, None] + shapes).reshape(-1, 4))
    return anchors


def per_anchor(maps: Tensor, values: int) -> Tensor:
    """Reshape a head's map (B, 3 * values, H, W) to one row per anchor, in their order: (B, H * W * 3, values)."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, values)
