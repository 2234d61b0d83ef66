"""Instance embeddings of a clip against each other and against the texts of the TrackBook (section 3.5, Eqs. 9 and 10).

Legend: `N` entries of the embedding pool, `K` identities of the clip, `E` length of a vector. Float32 also under
autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trackmill.models.ipmot.losses.contrastive import full_precision


def triplet(embeddings: Tensor, identities: Tensor, margin: float = 0.3) -> Tensor:
    """L_tri: max(|e - P(e)| - |e - N(e)| + margin, 0) (Eq. 9), averaged over anchors.

    [D]: a decision made here: P is the farthest entry of the same identity, N the nearest of another one, and the
    distance is euclidean, of vectors that are not normalised. Entries without a P or without an N are no anchors.

    Args:
        embeddings: (N, E) of all frames, of detect and of track queries.
        identities: (N,) whole numbers.
        margin: alpha, by how much farther others should be.

    Returns:
        A scalar; 0 with a gradient graph where there is no anchor. The gradient of a distance of 0 is 0.
    """
    embeddings = full_precision(embeddings)
    nothing = embeddings.sum() * 0
    if len(embeddings) < 3:
        return nothing
    with torch.no_grad():
        # Matrix products would be faster, but cancel where entries are close, which decides who is the hardest.
        distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")  # (N, N)
        same = identities[:, None] == identities[None]
        itself = torch.eye(len(same), dtype=torch.bool, device=same.device)
        positives, negatives = same & ~itself, ~same
        farthest = distances.masked_fill(~positives, -1).argmax(dim=1)
        nearest = distances.masked_fill(~negatives, torch.inf).argmin(dim=1)
        anchors = positives.any(dim=1) & negatives.any(dim=1)
    # Gradients go through these 2 N distances alone. The norm's own gradient at 0 is 0.
    to_positive = torch.linalg.vector_norm(embeddings - embeddings[farthest], dim=1)
    to_negative = torch.linalg.vector_norm(embeddings - embeddings[nearest], dim=1)
    losses = F.relu(to_positive - to_negative + margin)
    return losses.masked_fill(~anchors, 0).sum() / anchors.sum().clamp(min=1) + nothing


def image_to_text_cross_entropy(scores: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    """L_i2tce: each embedding finds the text of its identity, with smoothed labels (Eq. 10), averaged over entries.

    The target is (1 - epsilon) for the own identity plus epsilon / K for every one. [D]: a decision made here: K, the
    "T" of Eq. 10, counts the identities of the clip and not those of the whole TrackBook.

    Args:
        scores: (N, K) `similarity` of embeddings and texts. The texts are those just updated, detached.
        labels: (N,) int64, the column of the own identity.
        smoothing: epsilon; [D], the paper gives none.

    Returns:
        A scalar; 0 with a gradient graph where the pool is empty.
    """
    scores = full_precision(scores)
    if not len(scores):
        return scores.sum()
    return F.cross_entropy(scores, labels, label_smoothing=smoothing)
