"""One clip through the tracker while it is trained: frame after frame, with everything that its losses need.

Gradients flow from a frame back to the ones before through the content of track queries; anchors carry none. Each frame
takes one transfer from the device, for the assignment of all its layers at once.

`T` frames, `L` decoder layers, `G` people in a frame, `P` positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from trackmill.models.ipmot.clip_records import (
    STATISTICS,
    ClipPassSettings,
    ClipResult,
    ClipTargets,
    FrameRecord,
    LayerPool,
)
from trackmill.models.ipmot.losses.deduplication import deduplication_loss, deduplication_targets
from trackmill.models.ipmot.losses.detection import focal_loss, giou_loss, l1_loss
from trackmill.models.ipmot.matching import costs
from trackmill.models.ipmot.model import FrameOutput, IpMot
from trackmill.models.ipmot.queries import FALSE_POSITIVE, TrackQueries

Observe = Callable[[FrameRecord], None]


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
