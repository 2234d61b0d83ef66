"""IP-MOT's network with its losses: the TrackBook learns first, then the tracker, clip by clip and frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trackmill.models.clip.towers import ClipTowers
from trackmill.models.ipmot.clip_pass import run_clip
from trackmill.models.ipmot.clip_records import ClipPassSettings, ClipResult, ClipTargets
from trackmill.models.ipmot.crops import cut_crops
from trackmill.models.ipmot.frames import network_input
from trackmill.models.ipmot.losses import (
    collective_average,
    extended_collective_average,
    image_to_text_cross_entropy,
    similarity,
    triplet,
)
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.trackbook import FREE, TrackBook
from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.tasks.frozen_parts import freeze_parts, frozen_to_eval
from trackmill.pipeline.tasks.ipmot.batch import QueryBatch, QueryClip
from trackmill.pipeline.tasks.ipmot.settings import LossSection


class IpMotTraining(TrainingModule):
    """`IpMot` with its losses, and beside it what only training needs: the TrackBook and CLIP's frozen towers.

    Args:
        network: the model.
        frozen: names of its parts that are not trained: no gradients, always in evaluation mode.
        loss: weights and switches.
        passing: the rules of a clip's pass.
        book: learns the prompts of identities, in its buffers; None where no embedding is compared with texts.
        clip: CLIP, which it learns with.
        smallest: boxes of which less is in view are not read by CLIP, in pixels of either side.
    """

    network: IpMot

    def __init__(
        self,
        network: IpMot,
        frozen: Sequence[str],
        loss: LossSection,
        passing: ClipPassSettings,
        book: TrackBook | None = None,
        clip: ClipTowers | None = None,
        smallest: float = 8.0,
    ) -> None:
        super().__init__()
        self.network, self.frozen, self.loss, self.passing = network, tuple(frozen), loss, passing
        self.book, self.clip, self.smallest = book, clip, smallest
        freeze_parts(network, frozen)
        self.train()

    def train(self, mode: bool = True) -> IpMotTraining:
        """As in any module, but for what is frozen."""
        super().train(mode)
        frozen_to_eval(self.network, self.frozen)
        return self

    def forward(self, batch: QueryBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a batch; every rank calls it, since the TrackBook learns from the crops of all.

        Returns:
            `total`; `tracker`, the collective average (Eq. 7). Unweighted: of its last layer `focal`, `l1` and `giou`;
            `dem`, where there is a deduplication module; `triplet` and `i2tce`, sums over layers, where they are used;
            `i2t` and `t2i`, where there is a TrackBook. Then the statistics of `ClipResult` and `boxes`, a clip.
        """
        images = [clip.images.float() / 255 for clip in batch.clips]
        keys = _keys_by_id(batch.clips)
        learnt, texts = self._learn_prompts(batch.clips, images, keys)
        results = [self._run(clip, pixels) for clip, pixels in zip(batch.clips, images, strict=True)]
        aligned = [self._align(result, own, texts) for result, own in zip(results, keys, strict=True)]
        # The same number of clips on every rank, so this mean and that of engines over ranks are one.
        triplets, entropies = (torch.stack(each).mean(dim=0) for each in zip(*aligned, strict=True))

        number = torch.tensor(float(sum(each.num_boxes for each in results)), device=triplets.device)
        tracker = torch.stack([each.total(self.passing) for each in results]).sum()
        parts = {"tracker": tracker} | _parts(results)
        averaged = collective_average(torch.stack(list(parts.values())), number)
        losses = dict(zip(parts, averaged.unbind(), strict=True))
        total = extended_collective_average(
            losses["tracker"],
            triplets,
            entropies,
            triplet_weight=self.loss.triplet_weight,
            cross_entropy_weight=self.loss.i2tce_weight,
        )
        if self.loss.aligned_layers:
            losses |= {"triplet": triplets.sum()} if self.loss.triplet else {}
            losses |= {"i2tce": entropies.sum()} if self.loss.i2tce else {}
        # A mean over clips, as over the ranks, so that rows of a run do not depend on the number of ranks.
        statistics = {
            name: torch.tensor(sum(each.statistics[name] for each in results) / len(results))
            for name in results[0].statistics
        }
        told = {name: each.detach() for name, each in (losses | learnt).items()}
        return {"total": total, **told, **statistics, "boxes": number / len(results)}

    def _learn_prompts(
        self, clips: Sequence[QueryClip], images: Sequence[Tensor], keys: Sequence[dict[int, int]]
    ) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
        """Lines 2 to 9 of the supplement's algorithm: the TrackBook's step, and then its texts by key, detached."""
        if self.book is None or self.clip is None:
            return {}, {}
        crops, of_crops = [], []
        for clip, pixels in zip(clips, images, strict=True):
            cut = cut_crops(pixels, clip.boxes, smallest=self.smallest)
            crops.append(cut.images)
            of_crops.append(torch.cat(clip.keys)[cut.kept])
        learnt = self.book.update(self.clip, torch.cat(crops), torch.cat(of_crops))
        present = sorted({key for own in keys for key in own.values()} - {FREE})
        texts = self.book.texts(self.clip, torch.tensor(present, dtype=torch.int64, device=crops[0].device))
        return learnt, dict(zip(present, texts, strict=True))

    def _run(self, clip: QueryClip, pixels: Tensor) -> ClipResult:
        """The pass over one clip."""
        detector = self.network.detector
        frames = network_input(pixels, detector.mean, detector.std)
        height, width = pixels.shape[-2:]
        sides = pixels.new_tensor([width, height, width, height])
        boxes = [_centred(each / sides) for each in clip.boxes]
        return run_clip(self.network, frames, ClipTargets(boxes=boxes, ids=clip.ids), self.passing)

    def _align(self, result: ClipResult, keys: dict[int, int], texts: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """(layers,) triplet losses and (layers,) cross-entropies of one clip; zeros where there is nothing to compare.

        [D] Those who are nobody in the TrackBook have no part: somebody in a single picture does not change over
        time, and of somebody unknown it is not known from whom they differ.
        """
        device = result.focal.device
        pools = result.pools if self.loss.aligned_layers else []
        triplets, entropies = [], []
        order = {key: column for column, key in enumerate(sorted(set(keys.values()) - {FREE}))}
        for pool in pools:
            columns = [order.get(keys[identity], -1) for identity in pool.ids.tolist()]
            rows = torch.tensor([row for row, column in enumerate(columns) if column >= 0], dtype=torch.int64)
            labels = torch.tensor(columns, dtype=torch.int64)[rows].to(device)
            embeddings = pool.embeddings[rows.to(device)]
            if self.loss.triplet:
                triplets.append(triplet(embeddings, labels, self.loss.margin))
            if texts and order:
                scores = self._similarity(embeddings, torch.stack([texts[key] for key in order]))
                entropies.append(image_to_text_cross_entropy(scores, labels, self.loss.smoothing))
        nothing = torch.zeros(1, device=device)
        return (
            torch.stack(triplets) if triplets else nothing,
            torch.stack(entropies) if entropies else nothing.expand(len(pools) or 1),
        )

    def _similarity(self, embeddings: Tensor, texts: Tensor) -> Tensor:
        assert self.book is not None
        return similarity(embeddings, texts, self.book.settings.similarity, self.book.settings.temperature)


def _parts(results: Sequence[ClipResult]) -> dict[str, Tensor]:
    """Sums over clips of what belongs to the last layer."""
    parts = {name: torch.stack([getattr(each, name)[-1] for each in results]).sum() for name in ("focal", "l1", "giou")}
    duplicates = [each.deduplication for each in results if each.deduplication is not None]
    return parts | ({"dem": torch.stack(duplicates).sum()} if duplicates else {})


def _keys_by_id(clips: Sequence[QueryClip]) -> list[dict[int, int]]:
    """Of each clip, the TrackBook's key of each identity; one transfer from the device."""
    ids = [torch.cat(clip.ids) for clip in clips]
    both = torch.stack([torch.cat(ids), torch.cat([key for clip in clips for key in clip.keys])]).cpu()
    return [dict(zip(*own.tolist(), strict=True)) for own in both.split([len(each) for each in ids], dim=1)]


def _centred(boxes: Tensor) -> Tensor:
    """(G, 4) xyxy as cx, cy, w, h."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low], dim=1)
