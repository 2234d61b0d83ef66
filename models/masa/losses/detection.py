"""Losses of the proposal head (RPN) and of the object prior (RoI) head: Faster R-CNN, Ren et al. 2015, one class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trackmill.models.layers.anchors import level_anchors, per_anchor
from trackmill.models.layers.box_coding import ROI_DEVIATIONS, RPN_DEVIATIONS, encode_boxes
from trackmill.models.masa.losses.assigning import RPN_ASSIGNMENT, AssignSettings, assign
from trackmill.models.masa.losses.sampling import RPN_SAMPLING, Samples, SampleSettings, sample

SMOOTH_L1_BETA = 1 / 9
"""Where the smooth L1 loss of the proposal head changes from quadratic to linear (all variants but R50)."""

_EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True, kw_only=True)
class RpnLossSettings:
    """How the proposal head is trained.

    Args:
        beta: width of the quadratic part of the box loss; 0 is L1 (released: 0 for R50, 1/9 for all others).
        assignment: which anchors are assigned to which object.
        sampling: how many of the assigned anchors are sampled.
    """

    beta: float
    assignment: AssignSettings = RPN_ASSIGNMENT
    sampling: SampleSettings = RPN_SAMPLING


def rpn_losses(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    strides: Sequence[int],
    truths: Sequence[Tensor],
    settings: RpnLossSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of objectness and (smooth) L1 of deltas, both over the number of anchors sampled in the batch.

    Anchors that reach beyond the image count too (released: allowed border -1).

    Args:
        logits: per level (B, 3, H_l, W_l).
        deltas: per level (B, 12, H_l, W_l).
        strides: pixels per cell of each level.
        truths: boxes of the objects, B tensors (G_i, 4), xyxy pixels.
        settings: how the head is trained.
        generator: source of the random samples.

    Returns:
        Objectness loss and box loss of each level, both (L,); the total losses are their sums.
    """
    by_level = level_anchors([(each.shape[-2], each.shape[-1]) for each in logits], strides, logits[0].device)
    anchors = torch.cat(by_level)  # (A, 4)
    levels = torch.repeat_interleave(
        torch.arange(len(by_level), device=anchors.device),
        torch.tensor([len(each) for each in by_level], device=anchors.device),
    )
    scores = torch.cat([per_anchor(each.float(), 1)[..., 0] for each in logits], dim=1)  # (B, A)
    moves = torch.cat([per_anchor(each.float(), 4) for each in deltas], dim=1)  # (B, A, 4)
    objectness, boxes = scores.new_zeros(len(by_level)), scores.new_zeros(len(by_level))
    drawn = 0
    for image, truth in enumerate(truths):
        truth = truth.to(anchors)
        chosen = sample(anchors, truth, assign(anchors, truth, settings.assignment), settings.sampling, generator)
        yes, no = chosen.positive_indices, chosen.negative_indices
        # The released code counts an empty group as one anchor.
        drawn += max(1, len(yes)) + max(1, len(no))
        counted = torch.cat([yes, no])
        answers = torch.cat([torch.ones_like(yes), torch.zeros_like(no)]).to(scores)
        costs = F.binary_cross_entropy_with_logits(scores[image, counted], answers, reduction="none")
        objectness = objectness.index_add(0, levels[counted], costs)
        wanted = encode_boxes(chosen.positives, truth[chosen.truths], RPN_DEVIATIONS)
        costs = F.smooth_l1_loss(moves[image, yes], wanted, reduction="none", beta=settings.beta).sum(dim=1)
        boxes = boxes.index_add(0, levels[yes], costs)
    return objectness / (drawn + _EPS), boxes / (drawn + _EPS)


def roi_losses(
    logits: Tensor, deltas: Tensor, samples: Sequence[Samples], truths: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of object against background, L1 of the positives' deltas; both divided by the number of samples.

    Args:
        logits: (N, 2) of the samples of all images, one image after the other, positives before negatives; column 0 is
            the object, column 1 the background.
        deltas: (N, 4).
        samples: the samples of each of the B images, whose regions were pooled.
        truths: boxes of the objects, B tensors (G_i, 4), xyxy pixels.

    Returns:
        The two losses, scalars; the box loss is 0 if no sample is positive.
    """
    labels = torch.cat([_labels(each) for each in samples])  # (N,): 0 object, 1 background
    wanted = torch.cat(
        [
            encode_boxes(each.positives, truth.to(each.positives)[each.truths], ROI_DEVIATIONS)
            for each, truth in zip(samples, truths)
        ]
    )
    count = max(1, len(labels)) + _EPS
    classification = F.cross_entropy(logits.float(), labels, reduction="sum") / count
    regression = (deltas.float()[labels == 0] - wanted).abs().sum() / count
    return classification, regression


def _labels(samples: Samples) -> Tensor:
    labels = torch.ones(len(samples.positives) + len(samples.negatives), dtype=torch.int64)
    labels[: len(samples.positives)] = 0
    return labels.to(samples.positives.device)
