"""Embeddings of boxes in frames: scaled, batched and cut into runs of one size for the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from trackmill.models.detectors.frame_scaling import FrameScaling, runs_of_one_size
from trackmill.models.masa.frame_features import FrameFeatures
from trackmill.schemas.boxes import Boxes


class EmbeddingModel(Protocol):
    """What is needed of a model; `trackmill.models.masa.model.Masa` has it."""

    def embed(self, images: torch.Tensor, boxes: list[torch.Tensor]) -> list[torch.Tensor]:
        """Embeddings (N_i, D) of boxes (N_i, 4) in images (B, 3, H, W), float RGB 0..255."""


class Embedder:
    """Asks a model for the embeddings of boxes in uint8 frames.

    Boxes are handed over as they are, as in the released code: those that leave the frame, or lie outside it, are
    neither cut nor dropped; what the model pools there is the border's features and zeros.

    Args:
        model: see `EmbeddingModel`.
        scaling: the size at which the model sees the frames.
        device: where the model lies.
    """

    def __init__(self, model: EmbeddingModel, scaling: FrameScaling, device: torch.device | str = "cpu") -> None:
        self._model, self._scaling, self._device = model, scaling, torch.device(device)

    @torch.inference_mode()
    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        """Embeddings of each image's boxes.

        Args:
            images: (H, W, 3) uint8 RGB; sizes may differ, neighbours of one size share a batch.
            boxes: (N_i, 4) float32 `xyxy` in pixels of each image. An image without boxes does not go through the
                model.

        Returns:
            (N_i, D) float32 of each image; (0, 0) where there are no boxes.
        """
        embeddings = [np.zeros((0, 0), np.float32) for _ in images]
        filled = [i for i, each in enumerate(boxes) if len(each)]
        for run in runs_of_one_size([images[i] for i in filled]):
            places = filled[run]
            factors = self._scaling.factors(*images[places[0]].shape[:2])
            batch = self._scaling.scale([images[i] for i in places], self._device)  # (B, 3, h, w)
            scaled = [torch.from_numpy(boxes[i] * factors).to(self._device) for i in places]
            found = self._model.embed(batch, scaled)
            counts = [len(each) for each in found]
            # One transfer for the whole batch.
            together = torch.cat(list(found)).float().cpu().numpy()
            for i, rows in zip(places, np.split(together, np.cumsum(counts)[:-1]), strict=True):
                embeddings[i] = rows
        return embeddings


class FeatureEmbedder:
    """As `Embedder`, on maps that a detector or segmenter of the same model needs too.

    Args:
        features: the model and its maps.
    """

    def __init__(self, features: FrameFeatures) -> None:
        self._features = features

    @torch.inference_mode()
    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        """See `Embedder.embed`; here every image goes through the model."""
        embeddings: list[NDArray[np.float32]] = []
        for run in self._features.of(images):
            device = self._features.device
            scaled = [torch.from_numpy(each * run.factors).to(device) for each in boxes[run.frames]]
            found = self._features.model.embed_levels(run.levels, scaled)
            embeddings += [each.float().cpu().numpy() for each in found]
        return embeddings
