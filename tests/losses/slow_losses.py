"""The losses as plain double loops, word for word from the equations. Slow and easy to check."""

from __future__ import annotations

import torch
from torch import Tensor

Clip = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""embeddings, frame, identity, pseudo_negatives, negative_frame"""


def chain_loops(clip: Clip, temperature: float, pairs: list[tuple[int, int]] | None = None) -> tuple[Tensor, int]:
    """Eqs. 1 and 2 over pairs of frames (all neighbours, if left out), and the number of pairs of boxes."""
    embeddings, frame, identity, pseudo_negatives, negative_frame = clip
    frames, ids, negative_frames = frame.tolist(), identity.tolist(), negative_frame.tolist()
    last = max([*frames, *negative_frames, 0])
    total, count = embeddings.sum() * 0, 0
    for t, after in pairs if pairs is not None else [(t, t + 1) for t in range(last)]:
        for i in range(len(frames)):
            for j in range(len(frames)):
                if frames[i] != t or frames[j] != after or ids[i] != ids[j]:
                    continue
                denominator = torch.exp(embeddings[i] @ embeddings[j] / temperature)
                for k in range(len(frames)):
                    if frames[k] == after and k != j:
                        denominator = denominator + torch.exp(embeddings[i] @ embeddings[k] / temperature)
                for m in range(len(negative_frames)):
                    if negative_frames[m] == after:
                        denominator = denominator + torch.exp(embeddings[i] @ pseudo_negatives[m] / temperature)
                total = total - torch.log(torch.exp(embeddings[i] @ embeddings[j] / temperature) / denominator)
                count += 1
    return total / max(1, count), count


def supcon_loops(clips: list[Clip], temperature: float) -> Tensor:
    """Khosla et al., Eq. 2, over all clips; the mean over anchors of a clip, then over clips."""
    everything = [each for clip in clips for each in clip[0]] + [each for clip in clips for each in clip[3]]
    place, total = 0, everything[0].sum() * 0
    for clip in clips:
        ids, losses = clip[2].tolist(), []
        for i in range(len(ids)):
            anchor = everything[place + i]
            positives = [p for p in range(len(ids)) if p != i and ids[p] == ids[i]]
            if positives:
                others = torch.stack([anchor @ each for a, each in enumerate(everything) if a != place + i])
                whole = torch.exp(others / temperature).sum()
                terms = [torch.log(torch.exp(anchor @ everything[place + p] / temperature) / whole) for p in positives]
                losses.append(-torch.stack(terms).mean())
        if losses:
            total = total + torch.stack(losses).mean() / len(clips)
        place += len(ids)
    return total


def infonce_terms(clips: list[Clip], temperature: float) -> list[list[Tensor]]:
    """For each anchor that has a positive, in order, the loss with each of its positives."""
    everything = [each for clip in clips for each in clip[0]] + [each for clip in clips for each in clip[3]]
    place, found = 0, []
    for clip in clips:
        ids = clip[2].tolist()
        for i in range(len(ids)):
            anchor, mine = everything[place + i], [p for p in range(len(ids)) if ids[p] == ids[i]]
            left_out = {place + p for p in mine}
            negatives = [anchor @ each for a, each in enumerate(everything) if a not in left_out]
            terms = []
            for p in mine:
                if p != i:
                    with_positive = torch.stack([anchor @ everything[place + p], *negatives]) / temperature
                    terms.append(torch.logsumexp(with_positive, 0) - with_positive[0])
            if terms:
                found.append(terms)
        place += len(ids)
    return found
