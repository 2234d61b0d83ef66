"""Which of the assigned boxes a loss is taken over: a bounded number of positives and negatives, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trackmill.models.masa.losses.assigning import BACKGROUND


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How many boxes are drawn.

    Args:
        total: boxes at most.
        positive_share: share of `total` that positives may fill; negatives may fill the rest.
        negatives_per_positive: limit of the negatives, in positives (one, where there is none); None: no limit.
        add_truths: whether the ground truth itself is put before the boxes, as positives.
        balanced: whether positives are drawn evenly over the objects, or regardless of them.
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
    """The boxes drawn from one image, each group in the order it had before.

    Args:
        positives: (P, 4) xyxy.
        negatives: (Q, 4) xyxy.
        truths: (P,) int64, index of the object that each positive stands for.
        positive_indices, negative_indices: (P,) and (Q,) int64, where they stood (after the ground truth, if added).
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
    """Draw from the boxes of one image.

    Args:
        boxes: (N, 4) xyxy.
        truth_boxes: (G, 4) xyxy.
        assigned: (N,) from `assigning.assign`.
        settings: how many.
        generator: all randomness comes from here, and none is used where nothing has to be left out.
    """
    if settings.add_truths:
        boxes = torch.cat([truth_boxes.to(boxes), boxes])
        assigned = torch.cat([torch.arange(len(truth_boxes), device=assigned.device), assigned])
    candidates = torch.nonzero(assigned >= 0).flatten()
    wanted = int(settings.total * settings.positive_share)
    if settings.balanced:
        positives = draw_evenly(candidates, assigned[candidates], wanted, generator)
    else:
        positives = draw(candidates, wanted, generator)
    wanted = settings.total - len(positives)
    if settings.negatives_per_positive is not None:
        wanted = min(wanted, settings.negatives_per_positive * max(1, len(positives)))
    negatives = draw(torch.nonzero(assigned == BACKGROUND).flatten(), wanted, generator)
    return Samples(
        positives=boxes[positives],
        negatives=boxes[negatives],
        truths=assigned[positives],
        positive_indices=positives,
        negative_indices=negatives,
    )


def draw(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the candidates (N,), each as likely, in their order; all of them where they are not more."""
    if len(candidates) <= count:
        return candidates
    return candidates[_shuffled(candidates, generator)[:count].sort().values]


def draw_evenly(candidates: Tensor, objects: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` candidates, about as many of each object; all of them where they are not more.

    Each object first gives up to `round(count / objects) + 1`; what is too much is left out at random, what is missing
    is drawn from all that were left (Pang et al., "Libra R-CNN", CVPR 2019, instance-balanced sampling). The released
    code means to do the same, but its last step may draw a box twice and then ends with fewer than `count`.

    Args:
        candidates: (N,) int64, ascending.
        objects: (N,) int64, what each stands for.
        count: how many.
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
    # Place within its own group: how far it stands from the first of the same object.
    chosen = place - torch.searchsorted(grouped, grouped) < each
    drawn, left = candidates[order[chosen]], candidates[order[~chosen]]
    if len(drawn) < count:
        drawn = torch.cat([drawn, draw(left, count - len(drawn), generator)])
    return draw(drawn.sort().values, count, generator)


def _shuffled(candidates: Tensor, generator: torch.Generator) -> Tensor:
    permutation = torch.randperm(len(candidates), generator=generator, device=generator.device)
    return permutation.to(candidates.device)
