"""How hard a contrast was, from the similarities that the loss has computed already.

| name | meaning |
|---|---|
| `positives` | pairs of a clip that are pulled together, mean over the clips |
| `effective_negatives` | 1 / sum of the squared weights of an anchor's negatives, weights being their softmax at the \
loss's temperature: n if n are equally near, 1 if one outweighs all; mean over the anchors |
| `similarity_gap` | dot product with the positive minus that with the nearest negative, mean over the pairs |
| `chain_length` | frames of a chain, which is an identity in frames that are linked by pairs; mean over the chains |
| `chain_length_max` | frames of the longest chain |

All are 0 where there is no pair (the two in the middle also where no anchor has a negative).
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def contrast_statistics(
    *,
    positive_similarity: Tensor,
    negative_similarities: Tensor,
    temperature: float,
    num_pairs: Tensor | int,
    num_clips: int,
    chain_lengths: Tensor,
) -> dict[str, Tensor]:
    """The table above as scalars.

    Args:
        positive_similarity: (P,) dot products with the positive, one for each anchor (their mean, if it has several).
        negative_similarities: (P, C) dot products, -inf where a column is no negative of the anchor.
        temperature: that of the loss.
        num_pairs: of all clips.
        num_clips: B.
        chain_lengths: (number of chains,) int64 frames.
    """
    zero = positive_similarity.new_zeros(())
    best = negative_similarities.amax(dim=1) if len(positive_similarity) else positive_similarity
    counts = best > -torch.inf
    weights = (negative_similarities[counts] / temperature).softmax(dim=1)
    some = bool(counts.any())
    return {
        "positives": zero + num_pairs / num_clips,
        "effective_negatives": (1 / weights.square().sum(dim=1)).mean() if some else zero,
        "similarity_gap": (positive_similarity - best)[counts].mean() if some else zero,
        "chain_length": chain_lengths.to(zero).mean() if len(chain_lengths) else zero,
        "chain_length_max": chain_lengths.max().to(zero) if len(chain_lengths) else zero,
    }
