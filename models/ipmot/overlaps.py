"""Boxes cx, cy, w, h as corners, and their generalised overlap."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_AREA = 1e-9
"""Areas below it count as this much: a thousandth of a pixel of a picture of 1000 x 1000."""


def as_corners(boxes: Tensor) -> Tensor:
    """(..., 4) cx, cy, w, h to x1, y1, x2, y2."""
    centres, halves = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def generalised_iou(boxes: Tensor, others: Tensor, epsilon: float = 0.0) -> Tensor:
    """Intersection over union, less the share of the smallest enclosing box that neither box covers.

    Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019. In -1..1.

    Args:
        boxes, others: (..., 4) cx, cy, w, h in units of the picture; shapes are broadcast.
        epsilon: added to both divisors; 1e-6 in DAB-DETR's code, 0 in Deformable-DETR's and MeMOTR's. It shows in
            boxes of a hundredth of the picture: a loss that is 1e-4 higher.

    Returns:
        (...), of their dtype.
    """
    corners, other_corners = as_corners(boxes), as_corners(others)
    upper, lower = corners[..., :2], corners[..., 2:]
    other_upper, other_lower = other_corners[..., :2], other_corners[..., 2:]
    shared = (torch.minimum(lower, other_lower) - torch.maximum(upper, other_upper)).clamp(min=0).prod(-1)
    area, other_area = (lower - upper).prod(-1), (other_lower - other_upper).prod(-1)
    union = (area + other_area - shared).clamp(min=LEAST_AREA)
    enclosing = (torch.maximum(lower, other_lower) - torch.minimum(upper, other_upper)).prod(-1).clamp(min=LEAST_AREA)
    return shared / (union + epsilon) - (enclosing - union) / (enclosing + epsilon)
