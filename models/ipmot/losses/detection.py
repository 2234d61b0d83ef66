"""Eq. 8, the loss of classes and boxes: focal, L1 and generalised IoU, in parts and for a whole detector."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from trackmill.models.ipmot.overlaps import generalised_iou

LABEL_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
"""Of the three parts of Eq. 8 (paper, section 4.2)."""

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


def focal_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sigmoid focal loss (Lin et al., ICCV 2017; alpha 0.25, gamma 2), the first part of Eq. 8.

    Args:
        logits: of any shape.
        targets: 0 or 1, of the same shape.
        weights: of a shape that broadcasts to it; None: 1 each.

    Returns:
        The sum over all entries, a scalar.
    """
    each: Tensor = sigmoid_focal_loss(logits, targets.to(logits.dtype), FOCAL_ALPHA, FOCAL_GAMMA, reduction="none")
    return each.sum() if weights is None else (each * weights).sum()


def l1_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Distance of four numbers, the second part of Eq. 8.

    The paper speaks of width and height; as in DETR, whose loss it takes, the centre counts too.

    Args:
        boxes, targets: (P, 4) cx, cy, w, h in 0..1.

    Returns:
        The sum over all entries, a scalar; 0 for no box.
    """
    return (boxes - targets).abs().sum()


def giou_loss(boxes: Tensor, targets: Tensor, epsilon: float = 0.0) -> Tensor:
    """1 - generalised IoU, the third part of Eq. 8.

    Args:
        boxes, targets: (P, 4) cx, cy, w, h in 0..1.
        epsilon: see `trackmill.models.ipmot.overlaps.generalised_iou`.

    Returns:
        The sum over all pairs, a scalar; 0 for no box.
    """
    return (1 - generalised_iou(boxes, targets, epsilon)).sum()


def set_loss(
    focal: Tensor,
    l1: Tensor,
    giou: Tensor,
    weights: tuple[float, float, float] = (LABEL_WEIGHT, L1_WEIGHT, GIOU_WEIGHT),
) -> Tensor:
    """Eq. 8: the weighted sum of its three parts, which may be of any one shape."""
    return weights[0] * focal + weights[1] * l1 + weights[2] * giou
