"""What the paper compares the chain loss with (Figs. 1b and 3): pairs, a broken chain, and two global contrasts.

All have the arguments of `chain_contrastive_loss` and are the mean over the clips of a batch, so that they differ in
who is compared with whom and in nothing else.

| loss | positives of an anchor | its negatives |
|---|---|---|
| `pairwise_loss` | from frame 0 to 1 | everything else of frame 1 |
| `broken_chain_loss` | from 0 to 1, from 2 to 3, ... | everything else of that frame |
| `global_supcon_loss` | its identity in every other frame | everything else of all frames and clips of the batch |
| `global_infonce_loss` | its identity in one other frame, drawn | as SupCon, but for its identity's other frames |

The global two gather the batch over all ranks, so the number of ranks changes nothing. `optim.accumulate` does: a part
of a batch is then a batch of its own. An identity belongs to its clip: two clips have none in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from trackmill.models.losses.across_ranks import gather_counts, gather_rows, gather_rows_with_gradients, world_size
from trackmill.models.losses.chain import chain_contrast, clip_mean, even_frames, first_frame
from trackmill.models.losses.objects import TEMPERATURE, ClipObjects, Contrast, clip_objects
from trackmill.models.losses.statistics import contrast_statistics


def pairwise_loss(
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
    """The first two frames of each clip; later ones are not looked at (the paper's clips have two)."""
    objects = clip_objects(
        embeddings, frame, identity, pseudo_negatives, negative_frame, clip, negative_clip, num_clips
    )
    return chain_contrast(objects, temperature, first_frame).loss


def broken_chain_loss(
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
    """Disjoint pairs of frames (Fig. 3); of an odd number of frames the last has no partner.

    In the paper's comparison the network remembers the frames of a pair only; that is the caller's business.
    """
    objects = clip_objects(
        embeddings, frame, identity, pseudo_negatives, negative_frame, clip, negative_clip, num_clips
    )
    return chain_contrast(objects, temperature, even_frames).loss


def global_supcon_loss(
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
    """Supervised contrast (Khosla et al. 2020, Eq. 2), positives averaged outside the logarithm.

        -1/|P(i)| sum over p in P(i) of log( exp(s_ip) / sum over a of exp(s_ia) )

    P(i): the anchor's identity in other frames of its clip. a: every object but i and every pseudo-negative of the
    batch, of all clips, frames and ranks. Every rank must call it equally often.
    """
    objects = clip_objects(
        embeddings, frame, identity, pseudo_negatives, negative_frame, clip, negative_clip, num_clips
    )
    return global_supcon(objects, temperature).loss


def global_infonce_loss(
    embeddings: Tensor,
    frame: Tensor,
    identity: Tensor,
    pseudo_negatives: Tensor,
    negative_frame: Tensor,
    temperature: float = TEMPERATURE,
    *,
    generator: torch.Generator | None = None,
    clip: Tensor | None = None,
    negative_clip: Tensor | None = None,
    num_clips: int | None = None,
) -> Tensor:
    """InfoNCE with one positive, drawn among the identity's other frames in the clip.

    Its further frames are neither positives nor negatives. `generator` (on the CPU; left out: torch's own) decides; of
    several ranks, that of the first. Every rank must call it equally often.
    """
    objects = clip_objects(
        embeddings, frame, identity, pseudo_negatives, negative_frame, clip, negative_clip, num_clips
    )
    return global_infonce(objects, temperature, generator).loss


def global_supcon(objects: ClipObjects, temperature: float = TEMPERATURE) -> Contrast:
    """As `global_supcon_loss`, with statistics."""
    compared = _compare(gather_batch(objects))
    return _contrast(compared, compared.positive, temperature)


def global_infonce(
    objects: ClipObjects, temperature: float = TEMPERATURE, generator: torch.Generator | None = None
) -> Contrast:
    """As `global_infonce_loss`, with statistics."""
    compared = _compare(gather_batch(objects))
    return _contrast(compared, _draw_one(compared, generator), temperature)


def gather_batch(objects: ClipObjects) -> ClipObjects:
    """The clips of all ranks, in the order of ranks; alone, the same. Embeddings keep their gradients."""
    if world_size() == 1:
        return objects
    device = objects.embeddings.device
    clips = gather_counts(objects.num_clips, device)
    counts = gather_counts(len(objects.embeddings), device)
    negative_counts = gather_counts(len(objects.pseudo_negatives), device)
    before = sum(clips[: dist.get_rank()])
    return ClipObjects(
        embeddings=gather_rows_with_gradients(objects.embeddings, counts),
        frame=gather_rows(objects.frame, counts),
        identity=gather_rows(objects.identity, counts),
        clip=gather_rows(objects.clip + before, counts),
        pseudo_negatives=gather_rows_with_gradients(objects.pseudo_negatives, negative_counts),
        negative_frame=gather_rows(objects.negative_frame, negative_counts),
        negative_clip=gather_rows(objects.negative_clip + before, negative_counts),
        num_clips=sum(clips),
    )


@dataclass(frozen=True, eq=False)
class _Compared:
    """Each anchor with every row of the batch, objects before pseudo-negatives.

    Args:
        objects: the batch.
        anchors: (P,) objects whose identity is in another frame, too.
        similarities: (P, N + M) dot products.
        positive, negative: (P, N + M) bool; the anchor itself is neither.
    """

    objects: ClipObjects
    anchors: Tensor
    similarities: Tensor
    positive: Tensor
    negative: Tensor


def _compare(objects: ClipObjects) -> _Compared:
    same = (objects.clip[:, None] == objects.clip) & (objects.identity[:, None] == objects.identity)  # (N, N)
    anchors = torch.nonzero(same.sum(dim=1) > 1)[:, 0]
    same = same[anchors]
    itself = torch.arange(len(objects.clip), device=same.device) == anchors[:, None]
    pseudo = same.new_zeros(len(anchors), len(objects.pseudo_negatives))
    with torch.autocast(objects.embeddings.device.type, enabled=False):
        rows = torch.cat([objects.embeddings, objects.pseudo_negatives])
        similarities = objects.embeddings[anchors] @ rows.T
    return _Compared(
        objects=objects,
        anchors=anchors,
        similarities=similarities,
        positive=torch.cat([same & ~itself, pseudo], dim=1),
        negative=torch.cat([~same, ~pseudo], dim=1),
    )


def _contrast(compared: _Compared, positive: Tensor, temperature: float) -> Contrast:
    """Log-softmax over `positive` (P, N + M) and the negatives, mean over the positives of each anchor."""
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}: it should be above 0")
    objects, negative, number = compared.objects, compared.negative, positive.sum(dim=1)
    with torch.autocast(objects.embeddings.device.type, enabled=False):
        logits = compared.similarities / temperature
        everyone = torch.logsumexp(logits.masked_fill(~(positive | negative), -torch.inf), dim=1, keepdim=True)
        losses = ((everyone - logits) * positive).sum(dim=1) / number
    found = compared.similarities.detach()
    statistics = contrast_statistics(
        positive_similarity=(found * positive).sum(dim=1) / number,
        negative_similarities=found.masked_fill(~negative, -torch.inf),
        temperature=temperature,
        num_pairs=number.sum(),
        num_clips=objects.num_clips,
        chain_lengths=_frames_of_identities(objects),
    )
    return Contrast(loss=clip_mean(losses, objects.clip[compared.anchors], objects.num_clips), statistics=statistics)


def _draw_one(compared: _Compared, generator: torch.Generator | None) -> Tensor:
    """One of each anchor's positives: (P, N + M) bool. The same on every rank, and on one."""
    device = compared.positive.device
    seed = torch.randint(2**62, (1,), generator=generator)
    seed = gather_rows(seed.to(device), [1] * world_size())[:1]
    draws = torch.rand(len(compared.anchors), generator=torch.Generator().manual_seed(int(seed)), dtype=torch.float64)
    number = compared.positive.sum(dim=1, keepdim=True)
    wanted = (draws.to(device)[:, None] * number).long() + 1  # 1..number
    return compared.positive & (compared.positive.cumsum(dim=1) == wanted)


def _frames_of_identities(objects: ClipObjects) -> Tensor:
    """Of every identity with more than one frame: the number of its frames."""
    pairs = torch.stack([objects.clip, objects.identity], dim=1)
    counts: Tensor = torch.unique(pairs, dim=0, return_counts=True)[1]
    return counts[counts > 1]


LOSSES: dict[str, Callable[[ClipObjects, float, torch.Generator | None], Contrast]] = {
    "chain": lambda objects, temperature, _: chain_contrast(objects, temperature),
    "pairwise": lambda objects, temperature, _: chain_contrast(objects, temperature, first_frame),
    "broken_chain": lambda objects, temperature, _: chain_contrast(objects, temperature, even_frames),
    "global_supcon": lambda objects, temperature, _: global_supcon(objects, temperature),
    "global_infonce": global_infonce,
}
"""All by name: (objects, temperature, generator) -> the loss with its statistics."""
