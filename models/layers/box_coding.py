"""Box coding: a box as shift and log-scale of another box (R-CNN, Girshick et al. 2014, appendix C), as released."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RPN_DEVIATIONS = (1.0, 1.0, 1.0, 1.0)
"""Units of the proposal head's deltas: a delta times its deviation is the shift or log-scale."""

ROI_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
"""Units of the RoI head's deltas."""

LARGEST_LOG_SCALE = abs(math.log(16 / 1000))
"""Decoded sides are at most 62.5 times larger or smaller."""


def encode_boxes(boxes: Tensor, targets: Tensor, deviations: tuple[float, float, float, float]) -> Tensor:
    """Deltas that turn `boxes` into `targets`.

    Args:
        boxes: (N, 4) xyxy with sides above 0.
        targets: (N, 4) xyxy with sides above 0.
        deviations: units of dx, dy, dw, dh.

    Returns:
        (N, 4): shift of the centre relative to the sides of the box, log of the ratio of sides; each divided by its
        deviation.
    """
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
    target_centres, target_sides = (targets[:, :2] + targets[:, 2:]) * 0.5, targets[:, 2:] - targets[:, :2]
    deltas = torch.cat([(target_centres - centres) / sides, torch.log(target_sides / sides)], dim=1)
    return deltas / deltas.new_tensor(deviations)


def decode_boxes(
    boxes: Tensor, deltas: Tensor, deviations: tuple[float, float, float, float], height: int, width: int
) -> Tensor:
    """Apply `deltas` to `boxes`, and clip the result to the image.

    Args:
        boxes: (N, 4) xyxy.
        deltas: (N, 4), see `encode_boxes`.
        deviations: units of dx, dy, dw, dh.
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
