"""Collective averages: losses of a whole clip are summed, then divided once (Eqs. 7 and 11)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from trackmill.models.losses.across_ranks import world_size


def sum_over_ranks(number: Tensor) -> Tensor:
    """The sum of a number over all ranks, without gradients; the number itself where there is one rank.

    Args:
        number: any shape, float32 or float64. Every rank calls this.
    """
    total = number.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def collective_average(total: Tensor, number: Tensor | int) -> Tensor:
    """Eq. 7: the losses of all frames and both parts, detection and tracking, divided by T.

    T is the number of ground-truth boxes in the clip, as the text defines it; the bounds that Eq. 7 prints mix it with
    the number of frames. [D]: a box counts once, also under the query-balanced strategy, where detect and track
    query both learn it. T is averaged over the ranks, whose clips have at least one box together: since engines average
    gradients over the ranks too, every box of a step weighs the same, on whichever rank it is and on however many.

    Args:
        total: sum of a loss over the clip (or over all clips of this rank), any shape.
        number: T of this rank: boxes in the clip (or in all of its clips).

    Returns:
        Of the shape of `total`.
    """
    count = torch.as_tensor(number, dtype=torch.float32, device=total.device)
    return total / (sum_over_ranks(count).clamp(min=1) / world_size())


def extended_collective_average(
    clip: Tensor,
    triplet: Tensor,
    cross_entropy: Tensor,
    *,
    triplet_weight: float = 2.0,
    cross_entropy_weight: float = 4.0,
) -> Tensor:
    """Eq. 11: the collective average plus the weighted alignment losses of the chosen decoder layers.

    Eq. 11 divides sums over the embeddings by T. [D]: a decision made here: they are means over those embeddings that
    have a loss (Eqs. 9 and 10), so that their weight does not depend on how many queries have learnt a box.

    Args:
        clip: scalar of `collective_average`.
        triplet: (layers,) mean of Eq. 9 over the entries of each layer's pool.
        cross_entropy: (layers,) mean of Eq. 10.
        triplet_weight, cross_entropy_weight: section 4.2.

    Returns:
        Scalar. Layers are added, not averaged [D].
    """
    return clip + triplet_weight * triplet.sum() + cross_entropy_weight * cross_entropy.sum()
