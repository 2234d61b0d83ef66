"""Assigns boxes to ground-truth objects by IoU (the "max IoU" rule of Faster R-CNN)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND = -1
"""The box overlaps no object enough: a negative."""

IGNORED = -2
"""The box overlaps an object too much for a negative and too little for a positive."""


@dataclass(frozen=True, kw_only=True)
class AssignSettings:
    """Thresholds of intersection over union.

    Args:
        positive: a box whose best IoU is at least this is assigned to that object.
        negative: a box whose best IoU is below this is background; a box between the two thresholds is ignored.
        least: with `low_quality`, an object whose best box has at least this IoU gets that box (all of them, if
            several tie), even if the box has a better IoU with another object. If several objects claim a box so, the
            last one gets it.
        low_quality: whether objects without a box above `positive` get their best one.
    """

    positive: float
    negative: float
    least: float
    low_quality: bool


RPN_ASSIGNMENT = AssignSettings(positive=0.7, negative=0.3, least=0.3, low_quality=True)
ROI_ASSIGNMENT = AssignSettings(positive=0.5, negative=0.5, least=0.5, low_quality=False)
TRACK_ASSIGNMENT = AssignSettings(positive=0.7, negative=0.3, least=0.5, low_quality=False)
"""The three as released (training configuration of MASA-GroundingDINO)."""


def pairwise_iou(truths: Tensor, boxes: Tensor) -> Tensor:
    """IoU (G, N) of every box of `truths` (G, 4) with every box of `boxes` (N, 4), xyxy; 0 where both are empty."""
    low = torch.maximum(truths[:, None, 0], boxes[None, :, 0])
    shared = torch.minimum(truths[:, None, 2], boxes[None, :, 2]).sub_(low).clamp_(min=0)
    low = torch.maximum(truths[:, None, 1], boxes[None, :, 1])
    shared.mul_(torch.minimum(truths[:, None, 3], boxes[None, :, 3]).sub_(low).clamp_(min=0))
    union = (_areas(truths)[:, None] + _areas(boxes)[None]).sub_(shared).clamp_(min=1e-6)
    return shared.div_(union)


def assign(boxes: Tensor, truths: Tensor, settings: AssignSettings) -> Tensor:
    """Assign each box to an object.

    Args:
        boxes: (N, 4) float32 xyxy.
        truths: (G, 4) float32 xyxy; if G is 0, all boxes are background.
        settings: the thresholds.

    Returns:
        (N,) int64: index of the object in 0..G-1, `BACKGROUND` or `IGNORED`.
    """
    if not len(truths) or not len(boxes):
        return torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    iou = pairwise_iou(truths.to(boxes), boxes)  # (G, N)
    best, whose = iou.max(dim=0)
    assigned = torch.where(best < settings.negative, BACKGROUND, IGNORED)
    assigned = torch.where(best >= settings.positive, whose, assigned)
    if settings.low_quality:
        best_box = iou.max(dim=1).values  # (G,)
        takes = (iou == best_box[:, None]) & (best_box >= settings.least)[:, None]
        objects, taken = torch.nonzero(takes, as_tuple=True)
        assigned.scatter_reduce_(0, taken, objects, "amax", include_self=False)
    return assigned


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
