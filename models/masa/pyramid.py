"""Feature pyramids: the FPN, and the pyramid for a plain ViT, whose maps all have one size. All levels have C channels.

State-dict prefix `masa_adapter.0.`; names and arithmetic of mmdet 3.3.0's FPN and of MASA's necks/simplefpn.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution (3 x 3 padded, or 1 x 1), then batch norm or a bias; no activation.

    Args:
        inputs, outputs: channels before and after.
        kernel: 1 or 3.
        norm: True adds batch norm, False a bias.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=not norm)
        nn.init.xavier_uniform_(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.bn = nn.BatchNorm2d(outputs) if norm else None

    def forward(self, values: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        convolved: Tensor = self.conv(values)
        return convolved if self.bn is None else self.bn(convolved)


class Fpn(nn.Module):
    """Feature pyramid (Lin et al., CVPR 2017): 1 x 1 convolutions, sums from coarse to fine, 3 x 3 convolutions.

    Args:
        in_channels: C of each input map, the finest first.
        channels: C of all levels.
        num_levels: number of levels. Each level beyond the maps takes every second cell of the level before it.
        norm: batch norm after each convolution, instead of biases.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, num_levels: int, *, norm: bool = True) -> None:
        super().__init__()
        self.num_levels = num_levels
        self.lateral_convs = nn.ModuleList(ConvNorm(inputs, channels, 1, norm=norm) for inputs in in_channels)
        self.fpn_convs = nn.ModuleList(ConvNorm(channels, channels, 3, norm=norm) for _ in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i), the finest first, to `num_levels` levels (B, C, H_l, W_l)."""
        laterals = [conv(each) for conv, each in zip(self.lateral_convs, maps, strict=True)]
        for finer in reversed(range(len(laterals) - 1)):
            size = laterals[finer].shape[-2:]
            laterals[finer] = laterals[finer] + F.interpolate(laterals[finer + 1], size=size, mode="nearest")
        levels = [conv(each) for conv, each in zip(self.fpn_convs, laterals, strict=True)]
        while len(levels) < self.num_levels:
            levels.append(levels[-1][..., ::2, ::2])
        return levels


class SimpleFpn(Fpn):
    """Pyramid of strides 4, 8, 16, 32 from four maps of stride 16: ViTDet's idea, but each level has its own map.

    The rest is as in `Fpn`, without batch norm.

    Args:
        in_channels: C of the four maps.
        channels: C of all levels.
        num_levels: number of levels.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, num_levels: int) -> None:
        super().__init__(in_channels, channels, num_levels, norm=False)
        width = in_channels[0]
        self.fpn1 = nn.Sequential(_doubled(width), ChannelNorm(width), nn.GELU(), _doubled(width))
        self.fpn2 = nn.Sequential(_doubled(width))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (B, C, H, W) to levels of 4 H, 2 H, H, H / 2, ... rows."""
        finest, finer, same, coarser = maps
        return super().forward([self.fpn1(finest), self.fpn2(finer), same, F.max_pool2d(coarser, 2)])


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each cell, eps 1e-6; (B, C, H, W) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        normed: Tensor = self.ln(values.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2).contiguous()


def _doubled(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
