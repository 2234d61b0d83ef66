"""Pictures of people against texts of people: what the TrackBook learns by (section 3.2, Eqs. 1, 2 and 4).

Eq. 3 is Eq. 4 where each identity has one picture, so it has no function of its own.

Legend: `B` crops, `K` identities, `E` length of a vector. Everything is computed in float32 also under autocast, as
unnormalised vectors have dot products of hundreds; float64 stays float64.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Similarity = Literal["dot", "cosine"]
TextToImage = Literal["log_sum", "mean_log"]


def similarity(images: Tensor, texts: Tensor, form: Similarity = "dot", temperature: float = 1.0) -> Tensor:
    """s(V, T) of every picture and every text (Eq. 1).

    Args:
        images: (B, E) vectors V in the space of both.
        texts: (K, E) vectors T.
        form: "dot" as printed, of vectors as they are; "cosine" of unit vectors, over the temperature. [D]: a decision
            made here, as the paper prints no temperature and unit vectors without one make a nearly flat softmax.
        temperature: tau of "cosine"; CLIP's own is 0.01. Not used by "dot".

    Returns:
        (B, K).

    Raises:
        ValueError: another form.
    """
    if form not in ("dot", "cosine"):
        raise ValueError(f"form must be dot or cosine, not {form!r}")
    images, texts = full_precision(images), full_precision(texts)
    if form == "cosine":
        images, texts = F.normalize(images, dim=-1) / temperature, F.normalize(texts, dim=-1)
    with torch.autocast(images.device.type, enabled=False):
        return images @ texts.t()


def image_to_text(scores: Tensor, labels: Tensor) -> Tensor:
    """L_i2t: each picture finds the text of its identity among all (Eq. 2), averaged over pictures.

    [D]: a decision made here: the sum below the fraction runs over identities, each once. Eq. 2 sums over the pairs of
    a batch, where an identity with several pictures would be its own rival.

    Args:
        scores: (B, K) similarities.
        labels: (B,) int64, the column of the own identity.

    Returns:
        A scalar; 0 with a gradient graph where there is no picture.
    """
    scores = full_precision(scores)
    if not len(scores):
        return scores.sum()
    return F.cross_entropy(scores, labels)


def text_to_image(scores: Tensor, labels: Tensor, form: TextToImage = "log_sum") -> Tensor:
    """L_t2i: the text of each identity finds its pictures among all (Eq. 4), averaged over identities.

    Args:
        scores: (B, K) similarities.
        labels: (B,) int64, the column of the own identity. Identities without a picture are left out.
        form: "log_sum" as printed, -1/|P| log(sum over P / sum over all): the sum is inside the logarithm. "mean_log",
            the form that it descends from: -1/|P| sum over P of log(exp(s) / sum over all). [D]: which of them is a
            decision made here. They are equal for identities with one picture.

    Returns:
        A scalar; 0 with a gradient graph where there is no picture.

    Raises:
        ValueError: another form.
    """
    if form not in ("log_sum", "mean_log"):
        raise ValueError(f"form must be log_sum or mean_log, not {form!r}")
    scores = full_precision(scores)
    if not len(scores):
        return scores.sum()
    positive = labels[:, None] == torch.arange(scores.shape[1], device=scores.device)  # (B, K)
    count = positive.sum(dim=0)
    over_all = scores.logsumexp(dim=0)
    if form == "log_sum":
        # The lowest finite number and not infinity, whose logsumexp has no gradient where a column has no positive.
        lowest = torch.finfo(scores.dtype).min
        losses = (over_all - scores.masked_fill(~positive, lowest).logsumexp(dim=0)) / count.clamp(min=1)
    else:
        losses = over_all - scores.masked_fill(~positive, 0).sum(dim=0) / count.clamp(min=1)
    present = count > 0
    return losses.masked_fill(~present, 0).sum() / present.sum().clamp(min=1)


def full_precision(values: Tensor) -> Tensor:
    """Float32 of what is less precise."""
    return values if values.dtype == torch.float64 else values.float()
