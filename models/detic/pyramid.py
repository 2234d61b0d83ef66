"""Backbone and feature pyramid: maps of strides 8 to 128 with equal channels (Lin et al., FPN, CVPR 2017, sec. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trackmill.models.backbones.resnet import FrozenResNet
from trackmill.models.backbones.swin import Swin
from trackmill.models.detic.settings import Architecture


class Pyramid(nn.Module):
    """The backbone `bottom_up`, and p3 to p7 on its three maps (detectron2's `FPN` with `LastLevelP6P7_P5`).

    Prefix in the state dict: `backbone.`.

    Args:
        architecture: sizes.
        bottom_up: whether it has a backbone; otherwise only `levels` works, on maps from elsewhere.
    """

    def __init__(self, architecture: Architecture, *, bottom_up: bool = True) -> None:
        super().__init__()
        channels = architecture.channels
        for number, given in enumerate(architecture.in_channels, start=3):
            self.add_module(f"fpn_lateral{number}", nn.Conv2d(given, channels, 1))
            self.add_module(f"fpn_output{number}", nn.Conv2d(channels, channels, 3, padding=1))
        self.top_block = TopLevels(channels)
        if not bottom_up:
            return
        self.bottom_up: nn.Module = (
            Swin(
                architecture.window,
                width=architecture.width,
                depths=architecture.depths,
                heads=architecture.heads,
                spelling="original",
            )
            if architecture.backbone == "swin"
            else ResNetInBase(architecture.layers)
        )

    def maps(self, batch: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised and padded to the backbone's maps of strides 8, 16, 32."""
        found: list[Tensor] = self.bottom_up(batch)
        return found

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps to p3, p4, p5, p6, p7: (B, C, H / stride, W / stride) each, sizes rounded up."""
        found: list[Tensor] = []
        merged: Tensor | None = None
        for number in (5, 4, 3):
            lateral = self.get_submodule(f"fpn_lateral{number}")(maps[number - 3])
            # Padded sides are multiples of 32, so twice the coarser map is just the finer map's size.
            merged = lateral if merged is None else lateral + F.interpolate(merged, scale_factor=2.0, mode="nearest")
            found.insert(0, self.get_submodule(f"fpn_output{number}")(merged))
        return [*found, *self.top_block(found[-1])]

    def forward(self, batch: Tensor) -> list[Tensor]:
        """As `levels` of `maps`."""
        return self.levels(self.maps(batch))


class TopLevels(nn.Module):
    """p6 from p5, the pyramid's output and not the backbone's map; p7 from the ReLU of p6."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, p5: Tensor) -> list[Tensor]:
        """(B, C, H, W) to half and a quarter of the size, rounded up."""
        p6 = self.p6(p5)
        return [p6, self.p7(F.relu(p6))]


class ResNetInBase(nn.Module):
    """The ResNet under the name that it has in checkpoints: `bottom_up.base.`."""

    def __init__(self, layers: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.base = FrozenResNet(layers)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """As `FrozenResNet.forward`."""
        maps: list[Tensor] = self.base(batch)
        return maps
