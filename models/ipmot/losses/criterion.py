"""The loss of the detector alone: Eq. 8 in every decoder layer, each with an assignment of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trackmill.models.ipmot.losses.detection import focal_loss, giou_loss, l1_loss, set_loss
from trackmill.models.ipmot.matching import match_layers

DAB_EPSILON = 1e-6
"""What DAB-DETR's code adds to divisors of the generalised IoU."""


@dataclass(frozen=True, eq=False)
class DetectorLosses:
    """The parts of Eq. 8, unweighted, over the number of objects in the batch (at least 1).

    Args:
        labels, l1, giou: (L,) of each decoder layer, the last one last.
        total: their sum with weights 2, 5, 2 over all layers.
        matches: of each layer and each picture: queries and the objects that they learn, (M,) int64 each.
    """

    labels: Tensor
    l1: Tensor
    giou: Tensor
    total: Tensor
    matches: list[list[tuple[Tensor, Tensor]]]


def detector_losses(
    output: Mapping[str, Any], targets: Sequence[Mapping[str, Tensor]], giou_epsilon: float = DAB_EPSILON
) -> DetectorLosses:
    """The losses of a batch.

    Args:
        output: what `trackmill.models.ipmot.detector.DeformableDetr` gives.
        targets: of each picture `boxes` (G, 4), cx, cy, w, h in 0..1, and `labels` (G,) int64 in 0..C-1.
        giou_epsilon: see `trackmill.models.ipmot.overlaps.generalised_iou`; the default is that of DAB-DETR's code.

    Returns:
        All parts; those of boxes are 0 where no picture has an object.

    Raises:
        ValueError: the output holds NaN or infinity, or there are more or fewer targets than pictures.
    """
    layers = [*output["aux"], output]
    logits = torch.stack([layer["pred_logits"] for layer in layers]).float()  # (L, B, Q, C)
    boxes = torch.stack([layer["pred_boxes"] for layer in layers]).float()
    if len(targets) != logits.shape[1]:
        raise ValueError(f"there are targets of {len(targets)} pictures for {logits.shape[1]} pictures")
    wanted = [each["boxes"].to(boxes) for each in targets]
    labels = [each["labels"].to(logits.device) for each in targets]
    found = [
        match_layers(logits[:, number], boxes[:, number], *each, epsilon=giou_epsilon)
        for number, each in enumerate(zip(labels, wanted, strict=True))
    ]
    matches = [list(each) for each in zip(*found, strict=True)]  # by layer, then by picture
    layer_by_layer = zip(logits.unbind(), boxes.unbind(), matches, strict=True)
    parts = torch.stack([_layer(*each, labels, wanted, giou_epsilon) for each in layer_by_layer])  # (L, 3)
    focal, l1, giou = (parts / max(1, sum(map(len, labels)))).unbind(1)
    return DetectorLosses(focal, l1, giou, set_loss(focal, l1, giou).sum(), matches)


def _layer(
    logits: Tensor,
    boxes: Tensor,
    matches: Sequence[tuple[Tensor, Tensor]],
    labels: Sequence[Tensor],
    wanted: Sequence[Tensor],
    giou_epsilon: float,
) -> Tensor:
    """(3,): the sums of one layer over the batch."""
    positives = torch.zeros_like(logits)
    pairs = []
    for number, (query, target) in enumerate(matches):
        positives[number, query, labels[number][target]] = 1
        pairs.append((boxes[number, query], wanted[number][target]))
    found, true = (torch.cat(each) for each in zip(*pairs, strict=True))
    return torch.stack([focal_loss(logits, positives), l1_loss(found, true), giou_loss(found, true, giou_epsilon)])
