"""The contrastive loss between two views in its two published forms, and which boxes show the same object."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

RELEASED_WEIGHT = 0.25
"""Weight of the released form in the total loss."""

TEMPERATURE = 0.07
"""Temperature of the paper's form."""


def match_instances(key_ids: Tensor, ref_ids: Tensor) -> Tensor:
    """For each object of the key view, its index in the reference view, or -1: (G,) int64.

    Ids (G,) and (K,) match if they are equal and above 0; an id of 0 or less matches nothing. If several reference ids
    are equal, the first matches.
    """
    same = (key_ids[:, None] == ref_ids[None]) & (key_ids > 0)[:, None]  # (G, K)
    if not same.shape[1]:
        return torch.full_like(key_ids, -1, dtype=torch.int64)
    return torch.where(same.any(dim=1), same.int().argmax(dim=1), -1)


def pair_targets(matches: Tensor, key_truths: Tensor, ref_truths: Tensor, num_ref: int) -> Tensor:
    """Whether a key positive and a reference sample show the same object.

    Args:
        matches: (G,) from `match_instances`.
        key_truths: (P,) index of the object of each positive of the key view.
        ref_truths: (K,) the same for the reference view, whose first K samples are its positives.
        num_ref: R, the number of samples of the reference view.

    Returns:
        (P, R) bool.
    """
    targets = torch.zeros(len(key_truths), num_ref, dtype=torch.bool, device=key_truths.device)
    targets[:, : len(ref_truths)] = matches[key_truths][:, None] == ref_truths[None]
    return targets


def released_contrast(key: Tensor, ref: Tensor, targets: Tensor, ignored: Tensor | None = None) -> Tensor:
    """The loss that official weights were trained with ("unbiased contrast").

    s are dot products. For each row q with positives P(q) and negatives N(q):

        denominator(q) = mean_{p in P(q)} exp(s(q, p)) + sum_{n in N(q)} exp(s(q, n))
        loss(q) = -mean_{p in P(q)} (s(q, p) - log denominator(q))

    The result is the mean over the rows that have positives, times 0.25. Embeddings are not normalised, and there is no
    temperature. Source: released code, models/losses/unbiased_contrastive_loss.py, and mmdetection's quasi-dense
    embedding head.

    Args:
        key: (P, D) embeddings of the key view's positives.
        ref: (R, D) embeddings of the reference view's samples.
        targets: (P, R) bool, from `pair_targets`.
        ignored: (P, R) bool, pairs that are neither positive nor negative; disjoint from `targets`.

    Returns:
        The weighted loss, a scalar; 0 if no row has a positive.
    """
    counts = targets.any(dim=1)
    similarities, positive = (key @ ref.T)[counts], targets[counts]
    number = positive.sum(dim=1, keepdim=True)
    exponents = similarities if ignored is None else similarities.masked_fill(ignored[counts], -torch.inf)
    # mean exp(s) over n positives = sum exp(s - log n), so one log-sum-exp gives the denominator.
    denominators = torch.logsumexp(exponents - positive * number.to(similarities).log(), dim=1, keepdim=True)
    rows = ((denominators - similarities) * positive).sum(dim=1) / number[:, 0]
    return RELEASED_WEIGHT * rows.sum() / (len(rows) + torch.finfo(torch.float32).eps)


def paper_contrast(key: Tensor, ref: Tensor, targets: Tensor, ignored: Tensor | None = None) -> Tensor:
    """The loss that the paper states (section 3.2.1, the unnumbered equation of L_C).

    s are cosines divided by the temperature 0.07. Each positive pair is contrasted with the row's negatives:

        loss = -sum_q sum_{p in P(q)} log( exp(s(q, p)) / (exp(s(q, p)) + sum_{n in N(q)} exp(s(q, n))) )

    It is a sum, as printed in the paper, so it grows with the number of pairs.

    Args and returns:
        As `released_contrast`; the paper's weight is 1.
    """
    similarities = F.normalize(key, dim=1) @ F.normalize(ref, dim=1).T / TEMPERATURE
    left_out = targets if ignored is None else targets | ignored
    negatives = torch.logsumexp(similarities.masked_fill(left_out, -torch.inf), dim=1, keepdim=True)  # (P, 1)
    return F.softplus(negatives - similarities)[targets].sum()


CONTRASTS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]] = {
    "released": released_contrast,
    "paper": paper_contrast,
}
"""The two forms by name."""
