"""ScaleTrack's network with its loss: one forward pass for objects and pseudo-negatives of a batch of clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trackmill.models.losses.objects import clip_objects
from trackmill.models.losses.rivals import LOSSES
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.pipeline.loader.clips import NEGATIVE
from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.tasks.frozen_parts import freeze_parts, frozen_to_eval
from trackmill.pipeline.tasks.scaletrack.batch import ClipBatch
from trackmill.pipeline.tasks.scaletrack.settings import LossSection


class ScaleTrackTraining(TrainingModule):
    """`ScaleTrack` with its loss.

    Args:
        network: the model.
        frozen: names of its parts that are not trained: no gradients, always in evaluation mode.
        loss: which loss.
    """

    network: ScaleTrack

    def __init__(self, network: ScaleTrack, frozen: Sequence[str], loss: LossSection) -> None:
        super().__init__()
        self.network, self.frozen, self.loss = network, tuple(frozen), loss
        freeze_parts(network, frozen)
        self.train()

    def train(self, mode: bool = True) -> ScaleTrackTraining:
        """As in any module, but for what is frozen."""
        super().train(mode)
        frozen_to_eval(self.network, self.frozen)
        return self

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a batch.

        Returns:
            `total`, the weighted sum over decoder layers; `layer_1`, `layer_2`, ..., its parts, unweighted; and what
            `trackmill.models.losses.statistics` tells of the last layer.
        """
        clips, frames = batch.images.shape[:2]
        frame_of_box = batch.frame_of_box
        # The same network in the same frame for both, so that a pseudo-negative differs from an object in nothing.
        if self.loss.kind == "broken_chain":
            embeddings = self._encode_pairs(batch)
        else:
            embeddings = self.network.encode(
                batch.images.float() / 255, batch.boxes, frame_of_box, batch.sizes
            )  # (layers, N, D)
        clip, frame = frame_of_box // frames, frame_of_box % frames
        negative = batch.identity == NEGATIVE
        weights = self.loss.layer_weights or (1.0,) * len(embeddings)
        losses: dict[str, Tensor] = {}
        total, statistics = embeddings.new_zeros((), dtype=torch.float32), {}
        state = generator.get_state()
        for layer, (rows, weight) in enumerate(zip(embeddings, weights, strict=True), start=1):
            objects = clip_objects(
                rows[~negative],
                frame[~negative],
                batch.identity[~negative],
                rows[negative],
                frame[negative],
                clip[~negative],
                clip[negative],
                clips,
            )
            generator.set_state(state)  # what is drawn is the same for all layers
            contrast = LOSSES[self.loss.kind](objects, self.loss.temperature, generator)
            losses[f"layer_{layer}"], statistics = contrast.loss.detach(), contrast.statistics
            total = total + weight * contrast.loss
        return {"total": total, **losses, **statistics}

    def _encode_pairs(self, batch: ClipBatch) -> Tensor:
        """Frames (0, 1), (2, 3), ... as clips of their own, so that no frame remembers anything beyond its pair."""
        clips, frames = batch.images.shape[:2]
        images, frame_of_box = batch.images, batch.frame_of_box
        if frames % 2:
            # A black frame, which has no boxes, for the last one; other boxes move along.
            images = torch.cat([images, torch.zeros_like(images[:, :1])], dim=1)
            frame_of_box = frame_of_box + frame_of_box // frames
            frames += 1
        pairs = images.reshape(clips * frames // 2, 2, *images.shape[2:])
        sizes = batch.sizes.repeat_interleave(frames // 2, dim=0)
        return self.network.encode(pairs.float() / 255, batch.boxes, frame_of_box, sizes)
