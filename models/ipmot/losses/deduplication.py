"""The tracking score (Eq. 6), and what the deduplication module learns: to leave one query for each person."""

from __future__ import annotations

import torch
from torch import Tensor

from trackmill.models.ipmot.losses.contrastive import full_precision
from trackmill.models.ipmot.losses.detection import focal_loss

IGNORED = -1
"""Target of a query that has no part in the loss."""


def tracking_score(confidence: Tensor, duplicates: Tensor | None = None) -> Tensor:
    """Eq. 6: s = sqrt(sigmoid(c) sigmoid(d)), in float32, or float64 of such.

    A geometric mean: never above the larger factor, and the factor itself where both are equal. So a score of 0.5 needs
    both.

    Args:
        confidence: (Q,) logits c of the class.
        duplicates: (Q,) logits d; None without a deduplication module: s = sigmoid(c).

    Returns:
        (Q,) in 0..1.
    """
    score = full_precision(confidence).sigmoid()
    return score if duplicates is None else (score * full_precision(duplicates).sigmoid()).sqrt()


def deduplication_targets(
    num_queries: int,
    positives: Tensor,
    newborn: Tensor,
    num_detect: int,
    background: str = "zero",
) -> Tensor:
    """[D] which queries stay: a decision made here, as the paper names no targets for d.

    | query | target |
    |---|---|
    | track query whose identity is present | 1 |
    | track query without identity, or identity absent | 0 |
    | detect query matched to a newborn | 1 |
    | detect query matched to a tracked identity (duplicate) | 0 |
    | unmatched detect query | 0, or with `background="ignore"` none |

    Args:
        num_queries: Q, detect queries first.
        positives: (P,) int64 queries that have a person in the last layer's assignment.
        newborn: (P,) bool: no track query holds this person's identity.
        num_detect: N_d.
        background: `zero` also teaches it to turn second-best boxes down, `ignore` leaves unmatched detect queries out.

    Returns:
        (Q,) int64 on the device of `positives`: 1, 0 or `IGNORED`.
    """
    if background not in ("zero", "ignore"):
        raise ValueError(f"background must be zero or ignore, not {background!r}")
    targets = torch.zeros(num_queries, dtype=torch.int64, device=positives.device)
    if background == "ignore":
        targets[:num_detect] = IGNORED
    targets[positives] = (newborn | (positives >= num_detect)).to(targets.dtype)
    return targets


def deduplication_loss(duplicates: Tensor, targets: Tensor) -> Tensor:
    """[D] sigmoid focal loss (alpha 0.25, gamma 2) of d, summed over the queries; a scalar, in float32.

    Args:
        duplicates: (Q,) logits d.
        targets: (Q,) of `deduplication_targets`.
    """
    counts = targets != IGNORED
    # Multiplied rather than selected: a selection would wait for the device.
    return focal_loss(full_precision(duplicates), targets == 1, counts.float())
