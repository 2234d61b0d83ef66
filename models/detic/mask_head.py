"""The mask head: 28 x 28 probabilities for each box, alike for all classes (He et al., Mask R-CNN, sec. 3, fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trackmill.models.detic.pooling import pool
from trackmill.models.detic.settings import OFFICIAL, Flavour

CELLS = 14
"""Of a side of a pooled region; masks have twice as many."""

_AT_ONCE = 256
"""Regions that are in memory together: 50 MB of maps each for 256 channels."""


class MaskHead(nn.Module):
    """Four convolutions, an enlargement to twice the size, a probability for each cell.

    Args:
        channels: C of the levels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        for number in range(1, 5):
            self.add_module(f"mask_fcn{number}", nn.Conv2d(channels, channels, 3, padding=1))
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.predictor = nn.Conv2d(channels, 1, 1)

    def forward(self, regions: Tensor) -> Tensor:
        """(N, C, 14, 14) to probabilities (N, 28, 28) float32."""
        hidden = regions
        for number in range(1, 5):
            hidden = torch.relu(self.get_submodule(f"mask_fcn{number}")(hidden))
        logits: Tensor = self.predictor(torch.relu(self.deconv(hidden)))
        return logits[:, 0].float().sigmoid()

    def of_boxes(self, levels: Sequence[Tensor], boxes: Sequence[Tensor], flavour: Flavour = OFFICIAL) -> list[Tensor]:
        """Probabilities (N_i, 28, 28) of B tensors of boxes (N_i, 4), in pixels of the padded images."""
        found = []
        for image, every in enumerate(boxes):
            one = [level[image : image + 1] for level in levels]
            parts = [self(pool(one, [part], CELLS, flavour)) for part in every.split(_AT_ONCE)] if len(every) else []
            found.append(torch.cat(parts) if parts else every.new_zeros(0, 2 * CELLS, 2 * CELLS))
        return found
