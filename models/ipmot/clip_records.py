"""What goes into the pass over a clip, and what comes out: settings, targets, sums of losses, pools of embeddings.

`T` frames, `L` decoder layers, `G` people in a frame, `P` positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trackmill.models.ipmot.assignment import Integers, Kept, LayerAssignment
from trackmill.models.ipmot.losses.detection import set_loss
from trackmill.models.ipmot.model import FrameOutput
from trackmill.models.ipmot.queries import TrackQueries


@dataclass(frozen=True, kw_only=True)
class ClipPassSettings:
    """How a clip is trained on. The defaults are the paper's; `[D]` marks decisions made here, where it is silent.

    Args:
        class_weight, l1_weight, giou_weight: of Eq. 8 (section 4.2).
        class_cost, l1_cost, giou_cost: of the assignment of detect queries; the paper gives the same numbers for both.
        inner_weight: [D] of the loss of each decoder layer before the last (DETR).
        deduplication_weight: [D] of the loss of the deduplication module.
        dem_background: [D] `zero`: unmatched detect queries are to go; `ignore`: they have no part in that loss.
        alignment_layers: [D] decoder layers whose outputs go into the pool, counted from the last: 1, 3 or 5 in
            Table 5.
        newborn_iou_threshold: [D] a newborn whose box overlaps it less than this loses the identity at once. 0: labels
            alone decide, as in MOTR; 0.5 in MeMOTR.
        released: [D] a query that has just lost its identity goes on, as a false positive, if its `score` is above the
            threshold, or `always` for one frame, as in MeMOTR.
        activation_checkpointing: each frame's activations are computed again in the backward pass, from the backbone to
            the last decoder layer: about a third more time, and the memory of one frame instead of all. Results are
            the same to the bit.
    """

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    class_cost: float = 2.0
    l1_cost: float = 5.0
    giou_cost: float = 2.0
    inner_weight: float = 1.0
    deduplication_weight: float = 2.0
    dem_background: Literal["zero", "ignore"] = "zero"
    alignment_layers: int = 5
    newborn_iou_threshold: float = 0.0
    released: Literal["score", "always"] = "score"
    activation_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipTargets:
    """The people of a clip.

    Args:
        boxes: of each frame (G, 4) float32 cx, cy, w, h in 0..1 of the unpadded picture, where they may reach beyond;
            on the network's device.
        ids: of each frame (G,) int64, one number for one person in all frames, 0 or more; on any device.

    Raises:
        ValueError: shapes do not fit, an identity is negative or stands twice in one frame; says where.
    """

    boxes: Sequence[Tensor]
    ids: Sequence[Tensor]

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.ids):
            raise ValueError(f"boxes of {len(self.boxes)} frames, and identities of {len(self.ids)}")
        for frame, (boxes, ids) in enumerate(zip(self.boxes, self.ids, strict=True)):
            if boxes.shape != (len(ids), 4) or ids.ndim != 1:
                raise ValueError(
                    f"frame {frame}: boxes should be (G, 4) and ids (G,), got {tuple(boxes.shape)} and "
                    f"{tuple(ids.shape)}"
                )

    def identities(self) -> list[Integers]:
        """Identities of each frame on the CPU; one transfer."""
        lengths = [len(ids) for ids in self.ids]
        together = torch.cat([ids.reshape(-1).long() for ids in self.ids]).cpu().numpy() if lengths else np.empty(0)
        parts = np.split(together, np.cumsum(lengths)[:-1]) if lengths else []
        for frame, part in enumerate(parts):
            if (part < 0).any():
                raise ValueError(f"frame {frame}: identity {int(part.min())}; identities should be 0 or more")
            known, counts = np.unique(part, return_counts=True)
            if (counts > 1).any():
                raise ValueError(f"frame {frame}: identity {int(known[counts > 1][0])} has several boxes")
        return parts


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerPool:
    """Embeddings of the positives of one decoder layer, of detect and track queries, all frames (line 13 of the
    supplement's algorithm).

    Args:
        layer: its number from 0.
        embeddings: (P, 512) e, with gradients.
        ids: (P,) int64 identities, on the CPU.
    """

    layer: int
    embeddings: Tensor
    ids: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameRecord:
    """What happened in a frame, for those who look on.

    Args:
        index: of the frame.
        output: of the network.
        tracks: track queries that entered.
        layers: positives of each layer.
        born: (P,) bool, which positives of the last layer are newborn.
        overlaps: (P,) IoU of the positives of the last layer.
        kept: who goes on.
        focal, l1, giou: (L,) sums of this frame.
    """

    index: int
    output: FrameOutput
    tracks: TrackQueries | None
    layers: Sequence[LayerAssignment]
    born: np.ndarray
    overlaps: np.ndarray
    kept: Kept
    focal: Tensor
    l1: Tensor
    giou: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipResult:
    """Sums over a clip, before any division.

    Args:
        focal, l1, giou: (L,) parts of Eq. 8 by decoder layer, the last one at the end; detection and tracking together.
        deduplication: scalar sum; None without the module.
        num_boxes: T of Eq. 7 for this clip: each ground-truth box once.
        pools: of the layers that carry the alignment losses, empty without an embedding head.
        statistics: of the last layer, over the clip: `positives_detect`, `positives_track`, `newborn`, `released`
            (identities lost by overlap), `false_positives` (queries without identity that went on), `duplicates`
            (detect queries above the threshold on people that have a track), `left_over` (people without any query),
            `kept` (track queries that went on).
        touched: a zero that depends on every parameter of the tracker's own parts, so that none is ever without a
            gradient, also in a clip of one frame or without people; DDP waits for all of them.
    """

    focal: Tensor
    l1: Tensor
    giou: Tensor
    deduplication: Tensor | None
    num_boxes: int
    pools: Sequence[LayerPool]
    statistics: dict[str, float]
    touched: Tensor

    def total(self, settings: ClipPassSettings) -> Tensor:
        """The weighted sum of all parts, still to be divided by T (`collective_average`)."""
        layers = set_loss(
            self.focal, self.l1, self.giou, (settings.class_weight, settings.l1_weight, settings.giou_weight)
        )
        total = layers[-1] + settings.inner_weight * layers[:-1].sum() + self.touched
        if self.deduplication is not None:
            total = total + settings.deduplication_weight * self.deduplication
        return total


STATISTICS = (
    "positives_detect",
    "positives_track",
    "newborn",
    "released",
    "false_positives",
    "duplicates",
    "left_over",
    "kept",
)
