"""One clip through the tracker while it is trained: frame after frame, with everything that its losses need.

Gradients flow from a frame back to the ones before through the content of track queries; anchors carry none. Each frame
takes one transfer from the device, for the assignment of all its layers at once.

`T` frames, `L` decoder layers, `G` people in a frame, `P` positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trackmill.models.ipmot.assignment import (
    Integers,
    Kept,
    LayerAssignment,
    assign,
    keep,
    newborns,
    overlaps_of,
)
from trackmill.models.ipmot.losses.deduplication import deduplication_loss, deduplication_targets
from trackmill.models.ipmot.losses.detection import focal_loss, giou_loss, l1_loss, set_loss
from trackmill.models.ipmot.matching import costs
from trackmill.models.ipmot.model import FrameOutput, IpMot
from trackmill.models.ipmot.queries import FALSE_POSITIVE, TrackQueries

Observe = Callable[["FrameRecord"], None]


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


def run_clip(
    model: IpMot,
    frames: tuple[Tensor, Tensor],
    targets: ClipTargets,
    settings: ClipPassSettings | None = None,
    observe: Observe | None = None,
) -> ClipResult:
    """Train on one clip: everything but the division, the alignment losses and the step.

    A frame without people is defined: all queries are background in it. So is a clip without any.

    Args:
        model: the network; nothing of it remembers the clip.
        frames: images (T, 3, H, W) normalised and padded, and masks (T, H, W) bool, True where padded, as
            `trackmill.models.ipmot.frames.network_input` returns them.
        targets: people of the T frames.
        settings: weights and rules; None: the defaults.
        observe: is shown every frame.

    Raises:
        ValueError: there is no frame, their numbers differ, or targets are wrong.
    """
    settings = ClipPassSettings() if settings is None else settings
    images, masks = frames
    if not len(images) or len(images) != len(targets.boxes) or len(images) != len(masks):
        raise ValueError(
            f"{len(images)} frames with {len(masks)} masks and targets of {len(targets.boxes)}; there should be one "
            "of each for every frame, and at least one frame"
        )
    clip = _Clip(model, settings)
    tracks: TrackQueries | None = None
    for index, ids in enumerate(targets.identities()):
        output = _forward(model, images[index : index + 1], masks[index : index + 1], tracks, settings)
        record, places = clip.learn(index, output, tracks, targets.boxes[index], ids)
        if observe is not None:
            observe(record)
        if index + 1 < len(images):
            tracks = model.next_tracks(output, tracks, places, torch.from_numpy(record.kept.ids))
    return clip.result()


def _forward(
    model: IpMot, images: Tensor, masks: Tensor, tracks: TrackQueries | None, settings: ClipPassSettings
) -> FrameOutput:
    if settings.activation_checkpointing and torch.is_grad_enabled():
        output: FrameOutput = checkpoint(model, images, masks, tracks, use_reentrant=False)
        return output
    result: FrameOutput = model(images, masks, tracks)
    return result


class _Clip:
    """Sums of the clip so far."""

    def __init__(self, model: IpMot, settings: ClipPassSettings) -> None:
        self.model, self.settings = model, settings
        sizes = model.variant.detector
        self.num_layers, self.separate = sizes.decoder_layers, sizes.separate_first_layers
        wanted = settings.alignment_layers if model.embedding is not None else 0
        self.pooled = range(max(0, self.num_layers - wanted), self.num_layers)
        self.pool: dict[int, list[tuple[Tensor, Integers]]] = {layer: [] for layer in self.pooled}
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self.duplicates: list[Tensor] = []
        self.num_boxes = 0
        self.statistics = dict.fromkeys(STATISTICS, 0.0)

    def learn(
        self, index: int, output: FrameOutput, tracks: TrackQueries | None, boxes: Tensor, ids: Integers
    ) -> tuple[FrameRecord, Tensor]:
        """Assign, add up the losses, and decide who goes on: (K,) places on the device beside the record."""
        variant, settings = self.model.variant, self.settings
        number, device = output.num_detect, output.logits.device
        track_ids = np.empty(0, dtype=np.int64) if tracks is None else tracks.ids.numpy()
        boxes = boxes.to(device=device, dtype=torch.float32)
        matched, scores, last_boxes, target_boxes = _fetch(output, boxes, settings)
        layers = assign(matched, ids, track_ids, balanced=variant.qbs, separate_first_layers=self.separate)
        last = layers[-1]
        born = newborns(last, ids, track_ids)
        overlaps = overlaps_of(last_boxes[last.query], target_boxes[last.target])
        kept = keep(
            last,
            overlaps,
            scores,
            ids,
            track_ids,
            score_threshold=variant.keep_threshold,
            iou_threshold=variant.iou_threshold,
            newborn_iou_threshold=settings.newborn_iou_threshold,
            released=settings.released,
        )
        # Everything that the device needs to know, in one piece.
        lengths = [len(each.query) for each in layers]
        sent = torch.from_numpy(
            np.concatenate(
                [each.query for each in layers] + [each.target for each in layers] + [born.astype(np.int64), kept.query]
            )
        ).to(device, non_blocking=True)
        pieces = sent.split([*lengths, *lengths, len(born), len(kept.query)])
        queries, people = pieces[: self.num_layers], pieces[self.num_layers : 2 * self.num_layers]
        with torch.autocast(device.type, enabled=False):
            parts = self._losses(output, boxes, queries, people)
            self._deduplicate(output, queries[-1], pieces[-2].bool())
        self._remember(output, layers, queries, ids)
        self._count(number, last, born, scores, kept, len(ids))
        record = FrameRecord(
            index=index,
            output=output,
            tracks=tracks,
            layers=layers,
            born=born,
            overlaps=overlaps,
            kept=kept,
            focal=parts[0],
            l1=parts[1],
            giou=parts[2],
        )
        return record, pieces[-1]

    def _losses(
        self, output: FrameOutput, boxes: Tensor, queries: Sequence[Tensor], people: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        focal, l1, giou = [], [], []
        for layer, (query, person) in enumerate(zip(queries, people, strict=True)):
            logits = output.logits[layer].float()
            labels = torch.zeros_like(logits).index_fill(0, query, 1.0)
            found, wanted = output.boxes[layer].float().index_select(0, query), boxes.index_select(0, person)
            focal.append(focal_loss(logits, labels))
            l1.append(l1_loss(found, wanted))
            giou.append(giou_loss(found, wanted))
        parts = torch.stack(focal), torch.stack(l1), torch.stack(giou)
        self.parts.append(parts)
        return parts

    def _deduplicate(self, output: FrameOutput, query: Tensor, born: Tensor) -> None:
        if output.duplicates is not None:
            targets = deduplication_targets(
                len(output.scores), query, born, output.num_detect, self.settings.dem_background
            )
            self.duplicates.append(deduplication_loss(output.duplicates, targets))

    def _remember(
        self, output: FrameOutput, layers: Sequence[LayerAssignment], queries: Sequence[Tensor], ids: Integers
    ) -> None:
        for layer in self.pooled:
            found = output.hidden[layer].index_select(0, queries[layer])
            self.pool[layer].append((found, ids[layers[layer].target]))

    def _count(
        self,
        number: int,
        last: LayerAssignment,
        born: np.ndarray,
        scores: np.ndarray,
        kept: Kept,
        num_people: int,
    ) -> None:
        self.num_boxes += num_people
        detect = last.query < number
        again = last.query[detect & ~born]
        found = {
            "positives_detect": detect.sum(),
            "positives_track": (~detect).sum(),
            "newborn": born.sum(),
            "released": kept.released,
            "false_positives": (kept.ids == FALSE_POSITIVE).sum(),
            "duplicates": (scores[again] >= self.model.variant.score_threshold).sum(),
            "left_over": num_people - len(np.unique(last.target)),
            "kept": len(kept.ids),
        }
        for name, value in found.items():
            self.statistics[name] += float(value)

    def result(self) -> ClipResult:
        focal, l1, giou = (torch.stack(each).sum(dim=0) for each in zip(*self.parts, strict=True))
        pools = []
        for layer, parts in self.pool.items():
            assert self.model.embedding is not None
            pools.append(
                LayerPool(
                    layer=layer,
                    embeddings=self.model.embedding(torch.cat([found for found, _ in parts])),
                    ids=torch.from_numpy(np.concatenate([ids for _, ids in parts])),
                )
            )
        return ClipResult(
            focal=focal,
            l1=l1,
            giou=giou,
            deduplication=torch.stack(self.duplicates).sum() if self.duplicates else None,
            num_boxes=self.num_boxes,
            pools=pools,
            statistics=self.statistics,
            touched=_touched(self.model),
        )


@torch.no_grad()
def _fetch(
    output: FrameOutput, boxes: Tensor, settings: ClipPassSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Costs (L, N_d, G), scores (Q,), boxes of the last layer (Q, 4) and of people (G, 4): one transfer."""
    number = output.num_detect
    labels = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    with torch.autocast(boxes.device.type, enabled=False):
        matched = costs(
            output.logits[:, :number, None],
            output.boxes[:, :number],
            labels,
            boxes,
            weights=(settings.class_cost, settings.l1_cost, settings.giou_cost),
        )
    parts = [matched, output.scores, output.boxes[-1], boxes]
    together = torch.cat([each.detach().float().reshape(-1) for each in parts]).cpu().numpy()
    cuts = np.cumsum([each.numel() for each in parts])[:-1]
    found = [piece.reshape(each.shape) for piece, each in zip(np.split(together, cuts), parts, strict=True)]
    return found[0], found[1], found[2], found[3]


def _touched(model: IpMot) -> Tensor:
    parts = (model.query_update, model.deduplication, model.embedding)
    parameters = [each for part in parts if part is not None for each in part.parameters() if each.requires_grad]
    zero = next(model.parameters()).new_zeros(())
    return zero + sum((each.sum() * 0 for each in parameters), start=zero)
