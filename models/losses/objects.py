"""What contrastive losses over clips compare: embedded objects and pseudo-negatives, and the result of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TEMPERATURE = 0.07
"""The paper gives no value; this is the specification's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipObjects:
    """Objects and pseudo-negatives of one clip or several, ready to be compared; `clip_objects` makes it.

    Args:
        embeddings: (N, D) float32 or float64.
        frame, identity, clip: (N,) int64.
        pseudo_negatives: (M, D).
        negative_frame, negative_clip: (M,) int64.
        num_clips: B, clips without a single object included.
    """

    embeddings: Tensor
    frame: Tensor
    identity: Tensor
    clip: Tensor
    pseudo_negatives: Tensor
    negative_frame: Tensor
    negative_clip: Tensor
    num_clips: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast:
    """A loss, and how hard it was.

    Args:
        loss: scalar with gradients.
        statistics: scalars without gradients, see `trackmill.models.losses.statistics`.
    """

    loss: Tensor
    statistics: dict[str, Tensor]


def clip_objects(
    embeddings: Tensor,
    frame: Tensor,
    identity: Tensor,
    pseudo_negatives: Tensor,
    negative_frame: Tensor,
    clip: Tensor | None = None,
    negative_clip: Tensor | None = None,
    num_clips: int | None = None,
) -> ClipObjects:
    """Check and unify the arguments of a loss; `chain_contrastive_loss` explains them.

    Half precision becomes float32. What says which row is what may be of any integer type and on any device.

    Raises:
        ValueError: shapes or types do not fit, or an identity has two boxes in one frame of a clip; says which.
    """
    device = embeddings.device
    if embeddings.ndim != 2 or pseudo_negatives.ndim != 2 or embeddings.shape[1] != pseudo_negatives.shape[1]:
        raise ValueError(
            "embeddings and pseudo_negatives should be (N, D) and (M, D), "
            f"got {tuple(embeddings.shape)} and {tuple(pseudo_negatives.shape)}"
        )
    if (clip is None) != (negative_clip is None):
        raise ValueError("clip and negative_clip come together, or neither")
    if clip is None or negative_clip is None:
        clip, negative_clip = torch.zeros_like(frame), torch.zeros_like(negative_frame)
        num_clips = num_clips or 1
    objects = {"frame": frame, "identity": identity, "clip": clip}
    negatives = {"negative_frame": negative_frame, "negative_clip": negative_clip}
    for columns, rows in ((objects, embeddings), (negatives, pseudo_negatives)):
        for name, values in columns.items():
            if values.shape != rows.shape[:1]:
                raise ValueError(f"{name} should be ({len(rows)},), got {tuple(values.shape)}")
            if values.is_floating_point() and values.numel():
                raise ValueError(f"{name} should hold integers, got {values.dtype}")
            columns[name] = values.to(device=device, dtype=torch.int64)
    if num_clips is None:
        num_clips = 1 + max((int(each.max()) for each in (clip, negative_clip) if len(each)), default=0)
    kept = torch.promote_types(torch.promote_types(embeddings.dtype, pseudo_negatives.dtype), torch.float32)
    _refuse_twins(objects["frame"], objects["identity"], objects["clip"])
    return ClipObjects(
        embeddings=embeddings.to(kept),
        pseudo_negatives=pseudo_negatives.to(device=device, dtype=kept),
        num_clips=num_clips,
        **objects,
        **negatives,
    )


def sort_by(*keys: Tensor) -> Tensor:
    """Indices that sort rows by the first key, then by the second, ...; equal rows keep their order."""
    order = keys[-1].argsort(stable=True)
    for key in reversed(keys[:-1]):
        order = order[key[order].argsort(stable=True)]
    return order


def _refuse_twins(frame: Tensor, identity: Tensor, clip: Tensor) -> None:
    order = sort_by(clip, identity, frame)
    twin = torch.ones(max(0, len(order) - 1), dtype=torch.bool, device=frame.device)
    for key in (clip, identity, frame):
        twin &= key[order][1:] == key[order][:-1]
    if bool(twin.any()):
        which = int(order[1:][twin][0])
        raise ValueError(
            f"identity {int(identity[which])} has several boxes in frame {int(frame[which])} of clip "
            f"{int(clip[which])}: which of them is the object? Leave all but one out"
        )
