"""The chain contrastive loss of ScaleTrack (section 3.2, Eqs. 1 and 2), and its cuts: one pair, or a broken chain.

An object in frame t is compared with everything in frame t+1: itself there, the other objects, the pseudo-negatives.
There is no loop over frames or objects: rows are laid out by frame, and one batched product compares neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trackmill.models.losses.objects import TEMPERATURE, ClipObjects, Contrast, clip_objects, sort_by
from trackmill.models.losses.statistics import contrast_statistics

LinksFrom = Callable[[Tensor], Tensor]
"""(frames t) -> bool, whether t and t+1 are a pair of frames that the loss compares."""


def every_frame(frame: Tensor) -> Tensor:
    """The chain: (0, 1), (1, 2), (2, 3), ..."""
    return torch.ones_like(frame, dtype=torch.bool)


def even_frames(frame: Tensor) -> Tensor:
    """The broken chain of Fig. 3: (0, 1), (2, 3), ..."""
    return frame % 2 == 0


def first_frame(frame: Tensor) -> Tensor:
    """The first two frames alone: (0, 1)."""
    return frame == 0


def chain_contrastive_loss(
    embeddings: Tensor,
    frame: Tensor,
    identity: Tensor,
    pseudo_negatives: Tensor,
    negative_frame: Tensor,
    temperature: float = TEMPERATURE,
    *,
    clip: Tensor | None = None,
    negative_clip: Tensor | None = None,
    num_clips: int | None = None,
) -> Tensor:
    """The loss of a clip (Eq. 2), or the mean over the clips of a batch.

    For each identity i with a box in frame t and one in frame t+1, j, Eq. 1 is

        -log( exp(f_t^i . f_t+1^j / tau) / (sum over objects k of t+1 of exp(f_t^i . f_t+1^k / tau)
                                            + sum over pseudo-negatives m of t+1 of exp(f_t^i . p_t+1^m / tau)) )

    and Eq. 2 is the mean over all these pairs of the clip. It goes from t to t+1 only. An identity that is missing in
    t+1 gives no pair, also if it returns later; it is still a negative of others in the frames where it is.

    Dot products are taken as they are: unit vectors make them cosines. Half precision is computed in float32, also
    within autocast.

    Args:
        embeddings: (N, D), objects of all frames in any order.
        frame: (N,) integers, the place of the object's frame in the clip: 0, 1, 2, ...
        identity: (N,) integers of any value, equal for one object of a clip.
        pseudo_negatives: (M, D), negatives of every object and never positives; M may be 0.
        negative_frame: (M,) as `frame`.
        temperature: tau.
        clip, negative_clip: (N,) and (M,), which clip of a batch a row belongs to, 0..B-1; left out: there is one clip.
            Clips are not compared with each other.
        num_clips: B. A clip without a pair counts as 0, so say it where a clip may have no box at all.

    Returns:
        A scalar. Without a pair it is 0, and so are its gradients.

    Raises:
        ValueError: shapes do not fit, or an identity has two boxes in one frame; says which.
    """
    objects = clip_objects(
        embeddings, frame, identity, pseudo_negatives, negative_frame, clip, negative_clip, num_clips
    )
    return chain_contrast(objects, temperature).loss


def chain_contrast(
    objects: ClipObjects, temperature: float = TEMPERATURE, links_from: LinksFrom = every_frame
) -> Contrast:
    """The same with its statistics, for whichever pairs of frames.

    Args:
        objects: what is compared.
        temperature: tau.
        links_from: which frames t are compared with t+1.
    """
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}: it should be above 0")
    pairs = _find_pairs(objects, links_from)
    layout = _lay_out(objects)
    with torch.autocast(objects.embeddings.device.type, enabled=False):
        # (G - 1, A, D) x (G - 1, D, A + C): every frame against the one after it
        similarities = layout.objects[:-1] @ torch.cat([layout.objects, layout.negatives], dim=1)[1:].transpose(1, 2)
        rows = similarities[layout.group[pairs.anchor], layout.place[pairs.anchor]]  # (P, A + C)
        rows = rows.masked_fill(~layout.filled[layout.group[pairs.anchor] + 1], -torch.inf)
        targets = layout.place[pairs.positive]
        losses = F.cross_entropy(rows / temperature, targets, reduction="none")
    loss = clip_mean(losses, objects.clip[pairs.anchor], objects.num_clips)
    found = rows.detach()
    positive = found.gather(1, targets[:, None])
    statistics = contrast_statistics(
        positive_similarity=positive[:, 0],
        negative_similarities=found.scatter(1, targets[:, None], -torch.inf),
        temperature=temperature,
        num_pairs=len(targets),
        num_clips=objects.num_clips,
        chain_lengths=pairs.chain_lengths,
    )
    return Contrast(loss=loss, statistics=statistics)


def clip_mean(losses: Tensor, clip: Tensor, num_clips: int) -> Tensor:
    """The mean over clips of the mean over the losses of each; 0 for a clip that has none.

    Args:
        losses: (P,).
        clip: (P,) int64.
        num_clips: B.
    """
    counts = torch.bincount(clip, minlength=num_clips)
    return (losses / (counts[clip] * num_clips)).sum()


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Anchors and their positives, (P,) indices into the objects; frames of each chain of links."""

    anchor: Tensor
    positive: Tensor
    chain_lengths: Tensor


def _find_pairs(objects: ClipObjects, links_from: LinksFrom) -> _Pairs:
    order = sort_by(objects.clip, objects.identity, objects.frame)
    clip, identity, frame = objects.clip[order], objects.identity[order], objects.frame[order]
    linked = (clip[1:] == clip[:-1]) & (identity[1:] == identity[:-1]) & (frame[1:] - frame[:-1] == 1)
    linked &= links_from(frame[:-1])
    anchor, positive = order[:-1][linked], order[1:][linked]
    # Rows between two missing links are one chain.
    chain = torch.cat([linked.new_zeros(min(1, len(order))), ~linked]).cumsum(0)
    lengths = torch.unique_consecutive(chain, return_counts=True)[1]
    return _Pairs(anchor, positive, lengths[lengths > 1])


@dataclass(frozen=True, eq=False)
class _Layout:
    """All rows by frame. G frames of all clips that have a row, in order; A objects and C negatives at most in one.

    Args:
        objects, negatives: (G, A, D) and (G, C, D), zeros where there is none.
        filled: (G, A + C) bool.
        group, place: (N,) where each object is in `objects`.
    """

    objects: Tensor
    negatives: Tensor
    filled: Tensor
    group: Tensor
    place: Tensor


def _lay_out(objects: ClipObjects) -> _Layout:
    frames = torch.stack(
        [torch.cat([objects.clip, objects.negative_clip]), torch.cat([objects.frame, objects.negative_frame])], dim=1
    )
    # Sorted by clip, then by frame: if a clip has a row in t and one in t+1, they are neighbours.
    known, group = torch.unique(frames, dim=0, return_inverse=True)
    group, negative_group = group.split([len(objects.clip), len(objects.negative_clip)])
    rows, filled, place = _pad(objects.embeddings, group, len(known))
    negatives, filled_negatives, _ = _pad(objects.pseudo_negatives, negative_group, len(known))
    return _Layout(rows, negatives, torch.cat([filled, filled_negatives], dim=1), group, place)


def _pad(rows: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, D) by group as (G, longest, D), which of it is filled, and the place (N,) of each row in its group."""
    order = group.argsort(stable=True)
    counts = torch.bincount(group, minlength=num_groups)
    starts = counts.cumsum(0) - counts
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - starts[group[order]]
    longest = int(counts.max()) if len(counts) else 0
    padded = rows.new_zeros(num_groups, longest, rows.shape[1]).index_put((group, place), rows)
    return padded, torch.arange(longest, device=group.device) < counts[:, None], place
