"""The network of Detic: backbone, pyramid, proposals, cascade. Names in its state dict are the official ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from trackmill.models.detic.settings import Architecture, DetectionSettings

Size = tuple[int, int]
"""Height and width in pixels."""


class DeticNetwork(nn.Module):
    """From normalised, padded images to boxes with scores and labels."""

    def __init__(self, architecture: Architecture, num_classes: int = 1203) -> None:
        super().__init__()
        self.architecture = architecture

    def backbone_maps(self, batch: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised and padded to maps of strides 8, 16, 32."""
        raise NotImplementedError

    def detect_maps(
        self, maps: Sequence[Tensor], sizes: Sequence[Size], settings: DetectionSettings
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per image boxes (N, 4), scores (N,) and labels (N,)."""
        raise NotImplementedError
