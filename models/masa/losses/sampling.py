"""Samples a bounded number of positives and negatives from the assigned boxes, at random; losses use the samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trackmill.models.masa.losses.assigning import BACKGROUND


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How many boxes are sampled.

    Args:
        total: largest number of boxes.
        positive_share: share of `total` that positives may fill; negatives may fill the rest.
        negatives_per_positive: limits the negatives to this number for each positive (without a positive, as for one);
            None: no limit.
        add_truths: puts the ground-truth boxes before the others, as positives.
        balanced: samples positives evenly over the objects; False: uniformly over the boxes.
    """

    total: int
    positive_share: float
    negatives_per_positive: int | None = None
    add_truths: bool
    balanced: bool = False


RPN_SAMPLING = SampleSettings(total=256, positive_share=0.5, add_truths=False)
ROI_SAMPLING = SampleSettings(total=512, positive_share=0.25, add_truths=True)
TRACK_SAMPLING = SampleSettings(total=512, positive_share=0.5, negatives_per_positive=3, add_truths=True, balanced=True)
"""The three as released (training configuration of MASA-GroundingDINO)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """The boxes sampled from one image; positives and negatives each keep their order.

    Args:
        positives: (P, 4) xyxy.
        negatives: (Q, 4) xyxy.
        truths: (P,) int64, index of the object that each positive is assigned to.
        positive_indices, negative_indices: (P,) and (Q,) int64, indices into the given boxes; with `add_truths` into
            the ground truth followed by the boxes.
    """

    positives: Tensor
    negatives: Tensor
    truths: Tensor
    positive_indices: Tensor
    negative_indices: Tensor

    @property
    def boxes(self) -> Tensor:
        """(P + Q, 4), positives first."""
        return torch.cat([self.positives, self.negatives])


def sample(
    boxes: Tensor, truth_boxes: Tensor, assigned: Tensor, settings: SampleSettings, generator: torch.Generator
) -> Samples:
    """Sample from the boxes of one image.

    Args:
        boxes: (N, 4) xyxy.
        truth_boxes: (G, 4) xyxy.
        assigned: (N,) from `assigning.assign`.
        settings: how many boxes are sampled.
        generator: source of randomness; it is not used if no box has to be left out.
    """
    if settings.add_truths:
        boxes = torch.cat([truth_boxes.to(boxes), boxes])
        assigned = torch.cat([torch.arange(len(truth_boxes), device=assigned.device), assigned])
    candidates = torch.nonzero(assigned >= 0).flatten()
    wanted = int(settings.total * settings.positive_share)
    if settings.balanced:
        positives = draw_evenly(candidates, assigned[candidates], wanted, generator)
    else:
        positives = draw_uniformly(candidates, wanted, generator)
    wanted = settings.total - len(positives)
    if settings.negatives_per_positive is not None:
        wanted = min(wanted, settings.negatives_per_positive * max(1, len(positives)))
    negatives = draw_uniformly(torch.nonzero(assigned == BACKGROUND).flatten(), wanted, generator)
    return Samples(
        positives=boxes[positives],
        negatives=boxes[negatives],
        truths=assigned[positives],
        positive_indices=positives,
        negative_indices=negatives,
    )


def draw_uniformly(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` of the candidates (N,) uniformly and keep their order; return all if there are no more than that."""
    if len(candidates) <= count:
        return candidates
    return candidates[_shuffled(candidates, generator)[:count].sort().values]


def draw_evenly(candidates: Tensor, objects: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` candidates, about equally many of each object; return all if there are no more than that.

    First up to `round(count / objects) + 1` candidates of each object are drawn. If that is too many, some are left out
    at random; if it is too few, the rest is drawn from the remaining candidates (Pang et al., "Libra R-CNN", CVPR 2019,
    instance-balanced sampling). The released code intends the same, but its last step may draw a box twice and then
    returns fewer than `count`.

    Args:
        candidates: (N,) int64, ascending.
        objects: (N,) int64, the object that each candidate is assigned to.
        count: number of candidates to draw.
        generator: source of randomness.

    Returns:
        (min(N, count),) int64, ascending.
    """
    if len(candidates) <= count:
        return candidates
    each = round(count / len(objects.unique())) + 1
    order = _shuffled(candidates, generator)
    grouped, within = objects[order].sort(stable=True)
    order = order[within]
    place = torch.arange(len(order), device=order.device)
    # Position within its own object's group: distance to the group's first member.
    chosen = place - torch.searchsorted(grouped, grouped) < each
    drawn, left = candidates[order[chosen]], candidates[order[~chosen]]
    if len(drawn) < count:
        drawn = torch.cat([drawn, draw_uniformly(left, count - len(drawn), generator)])
    return draw_uniformly(drawn.sort().values, count, generator)


def _shuffled(candidates: Tensor, generator: torch.Generator) -> Tensor:
    permutation = torch.randperm(len(candidates), generator=generator, device=generator.device)
    return permutation.to(candidates.device)
