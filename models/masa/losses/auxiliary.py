"""The auxiliary track loss: squared error of cosines against 0 and 1, with a margin, over hard negatives only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEGATIVE_MARGIN = 0.1
"""A negative with a cosine up to this costs nothing."""

NEGATIVES_PER_POSITIVE = 3
"""Number of negatives kept for each positive, the most costly first."""


def margin_loss(key: Tensor, ref: Tensor, targets: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Pull cosines of positives to 1 and push those of negatives below 0.1.

        cost(q, r) = (clamp(cos(q, r) - 0.1 [r negative], 0, 1) - [r positive])^2

    The loss is the mean cost over all positive pairs and the most costly negative pairs, three negatives for each
    positive in the whole matrix; rows without a positive take part. Its weight is 1. The clamp gives no gradient to
    positives with a negative cosine nor to negatives within the margin. Not in the paper. Source: mmdetection's
    `MarginL2Loss` with the settings of the released configurations.

    Args:
        key: (P, D) embeddings of the key view's positives.
        ref: (R, D) embeddings of the reference view's samples.
        targets: (P, R) bool, true where both show the same object.
        ignored: (P, R) bool, pairs that are left out; disjoint from `targets`.

    Returns:
        A scalar; 0 if there is no positive pair.
    """
    cosines = F.normalize(key, dim=1) @ F.normalize(ref, dim=1).T
    costs = ((cosines - NEGATIVE_MARGIN * ~targets).clamp(0, 1) - targets.to(cosines)).square()
    positive, negative = costs[targets], costs[~targets if ignored is None else ~(targets | ignored)]
    limit = NEGATIVES_PER_POSITIVE * len(positive)
    if len(negative) > limit:
        negative = negative.topk(limit).values
    count = len(positive) + len(negative)
    return (positive.sum() + negative.sum()) / (count + torch.finfo(torch.float32).eps)
