"""MASA's maps of a batch of frames, computed once for all who need them: proposals, embeddings, masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trackmill.models.detectors.frame_scaling import FrameScaling, LatestMaps, Size
from trackmill.models.embedders.base import Embedder
from trackmill.models.masa.model import Masa
from trackmill.schemas.boxes import Boxes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunFeatures:
    """Maps of B neighbouring frames of one size.

    Args:
        frames: which of the batch they are.
        size: their height and width in pixels.
        scaled: the same after scaling, before padding.
        factors: (4,) float32, by which a box in a frame is multiplied to lie in the scaled one.
        maps: of the backbone, each (B, C, H_l, W_l).
        levels: as `Masa.features` gives them.
    """

    frames: slice
    size: Size
    scaled: Size
    factors: NDArray[np.float32]
    maps: list[Tensor]
    levels: list[Tensor]


class FrameFeatures:
    """Remembers the maps of the latest batch.

    Args:
        model: in evaluation mode.
        scaling: the size at which it sees the frames.
        device: where it lies.
    """

    def __init__(self, model: Masa, scaling: FrameScaling, device: torch.device | str = "cpu") -> None:
        self.model, self.scaling, self.device = model, scaling, torch.device(device)
        self._latest = LatestMaps[RunFeatures]()

    @torch.inference_mode()
    def of(self, images: Sequence[NDArray[np.uint8]]) -> list[RunFeatures]:
        """Maps of a batch of (H, W, 3) uint8 RGB frames; the very same arrays once more cost nothing."""
        return self._latest.of(images, self._compute)

    def embedder(self) -> FeatureEmbedder:
        """An embedder that reads these maps."""
        return FeatureEmbedder(self)

    def _compute(self, images: Sequence[NDArray[np.uint8]], run: slice) -> RunFeatures:
        height, width = images[run.start].shape[:2]
        batch = self.scaling.scale(images[run], self.device)  # (B, 3, h, w)
        maps = self.model.backbone_maps(self.model.prepare(batch))
        return RunFeatures(
            frames=run,
            size=(height, width),
            scaled=(batch.shape[2], batch.shape[3]),
            factors=self.scaling.factors(height, width),
            maps=maps,
            levels=self.model.adapt(maps),
        )


class FeatureEmbedder(Embedder):
    """Embeds boxes on maps that a detector or segmenter of the same model reads too.

    Args:
        features: the model and its maps.
    """

    def __init__(self, features: FrameFeatures) -> None:
        self._features = features

    @torch.inference_mode()
    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        """See `Embedder.embed`; here every image goes through the model, also one without boxes."""
        embeddings: list[NDArray[np.float32]] = []
        for run in self._features.of(images):
            device = self._features.device
            scaled = [torch.from_numpy(each * run.factors).to(device) for each in boxes[run.frames]]
            embedded = self._features.model.embed_levels(run.levels, scaled)
            embeddings += [each.float().cpu().numpy() for each in embedded]
        return embeddings
