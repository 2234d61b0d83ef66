"""A detector of a few thousand parameters, on a backbone whose cells see their own pixels alone; pictures for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trackmill.models.backbones import multilevel
from trackmill.models.backbones.multilevel import MultiLevelBackbone
from trackmill.models.ipmot.detector import DeformableDetr
from trackmill.models.ipmot.sizes import DetectorSizes

BACKBONE = "patches_of_tests"


class Patches(nn.Module):
    """Maps of strides 8 and 16; every cell sees its own square of pixels and nothing of its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 8, stride=8)
        self.coarse = nn.Conv2d(3, 12, 16, stride=16)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.fine(images), self.coarse(images)]


def _patches() -> MultiLevelBackbone:
    return MultiLevelBackbone(BACKBONE, Patches(), channels=(8, 12), strides=(8, 16), divisor=16)


def small_detector(*, seed: int = 0, **sizes: Any) -> DeformableDetr:
    """A detector whose weights are all drawn, so that no head is zero and every part shows; in evaluation mode."""
    multilevel.BACKBONES[BACKBONE] = _patches
    defaults = {"hidden": 16, "heads": 2, "points": 2, "levels": 3, "encoder_layers": 2, "decoder_layers": 3}
    more = {"feedforward": 24, "queries": 10, "classes": 5, "backbone": BACKBONE}
    try:
        detector = DeformableDetr(DetectorSizes(**{**defaults, **more, **sizes}))
    finally:
        del multilevel.BACKBONES[BACKBONE]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return detector.eval()


def batch_of(pictures: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pictures (3, H, W) as one batch: padded with zeros to the largest, and what is padding."""
    height, width = (max(each.shape[axis] for each in pictures) for axis in (1, 2))
    images = torch.zeros(len(pictures), 3, height, width)
    masks = torch.ones(len(pictures), height, width, dtype=torch.bool)
    for number, each in enumerate(pictures):
        images[number, :, : each.shape[1], : each.shape[2]] = each
        masks[number, : each.shape[1], : each.shape[2]] = False
    return images, masks
