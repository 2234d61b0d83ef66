"""Which query learns which object: the assignment of the least cost (Carion et al., "DETR", ECCV 2020, section 3.1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trackmill.models.ipmot.losses.detection import FOCAL_ALPHA, FOCAL_GAMMA, GIOU_WEIGHT, L1_WEIGHT, LABEL_WEIGHT
from trackmill.models.ipmot.overlaps import generalised_iou

_SMALL = 1e-8
"""Keeps the logarithm of a score finite, as in the published code."""

Weights = tuple[float, float, float]
"""Of the focal, the L1 and the GIoU part."""

WEIGHTS: Weights = (LABEL_WEIGHT, L1_WEIGHT, GIOU_WEIGHT)


@torch.no_grad()
def costs(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    target_boxes: Tensor,
    weights: Weights = WEIGHTS,
    epsilon: float = 0.0,
) -> Tensor:
    """What it costs that a query learns an object: 2 focal, 5 L1, 2 GIoU (paper, section 4.2).

    Args:
        logits: (..., Q, C), any leading dimensions, such as the decoder layers.
        boxes: (..., Q, 4) cx, cy, w, h in 0..1.
        labels: (G,) int64 in 0..C-1.
        target_boxes: (G, 4), as `boxes`; they may leave 0..1.
        weights: of the three parts; the default is the paper's.
        epsilon: see `trackmill.models.ipmot.overlaps.generalised_iou`.

    Returns:
        (..., Q, G) float32 without gradients; not finite where the network's numbers are not.
    """
    scores = logits.float().sigmoid()[..., labels]  # (..., Q, G)
    wanted = FOCAL_ALPHA * (1 - scores) ** FOCAL_GAMMA * -(scores + _SMALL).log()
    unwanted = (1 - FOCAL_ALPHA) * scores**FOCAL_GAMMA * -(1 - scores + _SMALL).log()
    found, targets = boxes.float().unsqueeze(-2), target_boxes.float()
    apart, overlap = (found - targets).abs().sum(-1), generalised_iou(found, targets, epsilon)
    return weights[0] * (wanted - unwanted) + weights[1] * apart - weights[2] * overlap


def match(logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The assignment of one picture and one layer: each object gets a query of its own, as far as there are queries.

    Args:
        logits: (Q, C).
        boxes: (Q, 4) cx, cy, w, h in 0..1.
        labels: (G,) int64 in 0..C-1.
        target_boxes: (G, 4), as `boxes`.

    Returns:
        Queries in rising order and the objects that they learn: two (M,) int64 on the logits' device, M = min(Q, G).

    Raises:
        ValueError: the costs hold NaN or infinity.
    """
    return match_layers(logits[None], boxes[None], labels, target_boxes)[0]


def match_layers(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    target_boxes: Tensor,
    weights: Weights = WEIGHTS,
    epsilon: float = 0.0,
) -> list[tuple[Tensor, Tensor]]:
    """As `match`, of each of L layers, with one transfer from the device and one to it.

    Args:
        logits: (L, Q, C).
        boxes: (L, Q, 4) cx, cy, w, h in 0..1.
        labels: (G,) int64 in 0..C-1.
        target_boxes: (G, 4), as `boxes`.
        weights, epsilon: see `costs`.

    Returns:
        Queries and objects of each layer.

    Raises:
        ValueError: see `match`.
    """
    from scipy.optimize import linear_sum_assignment

    matrices = costs(logits, boxes, labels, target_boxes, weights, epsilon).cpu()
    if not bool(matrices.isfinite().all()):
        raise ValueError(
            "queries cannot be matched: their logits or boxes, or the boxes of the objects, hold NaN or infinity; the "
            "training has diverged (lower its learning rate), or the weights are damaged"
        )
    pairs = [linear_sum_assignment(matrix) for matrix in matrices.numpy()]
    # They are all of one length, the smaller number of Q and G.
    placed = torch.tensor(np.array(pairs, dtype=np.int64), device=logits.device)  # (L, 2, M)
    return [(query, target) for query, target in placed.unbind()]
