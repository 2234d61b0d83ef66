"""Boxes as shifts and log-scales of other boxes (R-CNN, Girshick et al. 2014, appendix C), as released."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RPN_DEVIATIONS = (1.0, 1.0, 1.0, 1.0)
"""What the proposal head's deltas are measured in."""

ROI_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
"""What the RoI head's deltas are measured in."""

LARGEST_LOG_SCALE = abs(math.log(16 / 1000))
"""Decoded sides grow or shrink 62.5 times at most."""


def encode(boxes: Tensor, targets: Tensor, deviations: tuple[float, float, float, float]) -> Tensor:
    """Deltas that turn `boxes` into `targets`.

    Args:
        boxes: (N, 4) xyxy with sides above 0.
        targets: (N, 4) xyxy with sides above 0.
        deviations: the unit of dx, dy, dw, dh.

    Returns:
        (N, 4): shift of the centre in sides of the box, log of the ratio of sides, each over its deviation.
    """
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
    target_centres, target_sides = (targets[:, :2] + targets[:, 2:]) * 0.5, targets[:, 2:] - targets[:, :2]
    deltas = torch.cat([(target_centres - centres) / sides, torch.log(target_sides / sides)], dim=1)
    return deltas / deltas.new_tensor(deviations)


def decode(
    boxes: Tensor, deltas: Tensor, deviations: tuple[float, float, float, float], height: int, width: int
) -> Tensor:
    """Boxes that `deltas` make of `boxes`, cut at the image's borders.

    Args:
        boxes: (N, 4) xyxy.
        deltas: (N, 4), see `encode`.
        deviations: the unit of dx, dy, dw, dh.
        height, width: pixels of the image before padding.

    Returns:
        (N, 4) xyxy within 0..width and 0..height.
    """
    scaled = deltas * deltas.new_tensor(deviations)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
    new_centres = centres + sides * scaled[:, :2]
    half_sides = sides * scaled[:, 2:].clamp(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE).exp() * 0.5
    corners = torch.cat([new_centres - half_sides, new_centres + half_sides], dim=1)
    return corners.clamp(min=0).minimum(corners.new_tensor([width, height, width, height]))
