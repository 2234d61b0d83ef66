"""Fusion of the pyramid's levels by deformable convolution: MASA's DeformFusion, and the DyHead block for SAM.

Each level is averaged with its finer and its coarser neighbour; the level itself predicts where its neighbours are
sampled (paper, section 3.2.2 and eq. 1; released code, necks/deform_fusion.py; DyHead as in mmdet 3.3.0). Three blocks
follow each other without an activation between them. State-dict prefix of both kinds:
`masa_adapter.1.dyhead_blocks.N.`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackmill.models.layers.deform_conv import TAPS, DeformConvNorm, reread

NUM_BLOCKS = 3

_TASK_REDUCTION = 4


class DeformBlock(nn.Module):
    """One block of DeformFusion: separate offsets for the level itself, for the finer and for the coarser level.

    Args:
        channels: C of all levels.
        compatible_offsets: True convolves the coarser map and then enlarges the result, with offsets read in the wrong
            geometry (`trackmill.models.layers.deform_conv.reread`), as official weights need it. False enlarges the map
            first, so that each offset acts at the cell it was predicted for (the released code's `fix_upsample`, which
            no released configuration uses); that convolution then has four times as many cells.
    """

    num_sets = 3
    """Sets of offsets: 3, one for each of the three convolutions, or 1 that they share."""

    def __init__(self, channels: int, *, compatible_offsets: bool = True) -> None:
        super().__init__()
        self.compatible_offsets = compatible_offsets
        self.spatial_conv_offset = nn.Conv2d(channels, 3 * TAPS * self.num_sets, 3, padding=1)
        self.spatial_conv_high = DeformConvNorm(channels)
        self.spatial_conv_mid = DeformConvNorm(channels)
        self.spatial_conv_low = DeformConvNorm(channels, stride=2)
        assert self.spatial_conv_offset.bias is not None
        nn.init.zeros_(self.spatial_conv_offset.weight)
        nn.init.zeros_(self.spatial_conv_offset.bias)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, C, H_l, W_l), the finest first, to levels of the same sizes."""
        return [self._fuse(levels, index) for index in range(len(levels))]

    def combine(self, terms: Sequence[Tensor]) -> Tensor:
        """Combine the terms of the level, of its finer and of its coarser neighbour (if they exist) to one map."""
        return _total(terms) / len(terms)

    def _fuse(self, levels: Sequence[Tensor], index: int) -> Tensor:
        level = levels[index]
        offsets, weights = self._offsets(level)
        terms = [self.spatial_conv_mid(level, offsets[0], weights[0])]
        if index > 0:
            terms.append(self.spatial_conv_low(levels[index - 1], offsets[1], weights[1]))
        if index < len(levels) - 1:
            terms.append(self._coarser(levels[index + 1], offsets[2], weights[2]))
        return self.combine(terms)

    def _offsets(self, level: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Offsets (B, 18, H, W) and weights (B, 9, H, W) for the level itself, the finer and the coarser one."""
        raw = self.spatial_conv_offset(level)  # (B, 27 * sets, H, W): all offsets, then all weights
        offsets, weights = raw.split([2 * TAPS * self.num_sets, TAPS * self.num_sets], dim=1)
        each = 3 // self.num_sets
        return offsets.chunk(self.num_sets, 1) * each, weights.sigmoid().chunk(self.num_sets, 1) * each

    def _coarser(self, coarser: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        if self.compatible_offsets:
            height, width = coarser.shape[-2:]
            convolved = self.spatial_conv_high(coarser, reread(offsets, height, width), reread(weights, height, width))
            return _enlarge(convolved, offsets)
        sampled: Tensor = self.spatial_conv_high(_enlarge(coarser, offsets), offsets, weights)
        return sampled


class DyHeadBlock(DeformBlock):
    """One block of DyHead (Dai et al., CVPR 2021): three convolutions share offsets, each has a gate, then DyReLU.

    Args:
        channels, compatible_offsets: as in `DeformBlock`.
    """

    num_sets = 1

    def __init__(self, channels: int, *, compatible_offsets: bool = True) -> None:
        super().__init__(channels, compatible_offsets=compatible_offsets)
        # Checkpoints name the convolution `1`, so the pooling must stand before it in this Sequential.
        scale = nn.Conv2d(channels, 1, 1)
        self.scale_attn_module = nn.Sequential(nn.AdaptiveAvgPool2d(1), scale, nn.ReLU(), nn.Hardsigmoid())
        self.task_attn_module = DynamicRelu(channels)
        assert scale.bias is not None
        nn.init.normal_(scale.weight, std=0.01)
        nn.init.zeros_(scale.bias)

    def combine(self, terms: Sequence[Tensor]) -> Tensor:
        """Multiply each term by its gate, average, then apply DyReLU."""
        fused: Tensor = self.task_attn_module(
            _total([term * self.scale_attn_module(term) for term in terms]) / len(terms)
        )
        return fused


class DynamicRelu(nn.Module):
    """`max(a1 x + b1, a2 x + b2)`, coefficients predicted from the mean of the map (DyReLU-B; mmdet's `DyReLU`).

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // _TASK_REDUCTION
        first, second = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, 4 * channels, 1)
        self.conv1, self.conv2 = nn.ModuleDict({"conv": first}), nn.ModuleDict({"conv": second})
        for convolution in (first, second):
            assert convolution.bias is not None
            nn.init.normal_(convolution.weight, std=0.01)
            nn.init.zeros_(convolution.bias)

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        pooled = F.adaptive_avg_pool2d(values, 1)
        hidden = F.relu(self.conv1["conv"](pooled))
        coefficients = F.hardsigmoid(self.conv2["conv"](hidden)) - 0.5  # (B, 4 C, 1, 1)
        slope_1, shift_1, slope_2, shift_2 = coefficients.chunk(4, dim=1)
        return torch.maximum(values * (slope_1 * 2 + 1) + shift_1, values * (slope_2 * 2) + shift_2)


BLOCKS: dict[str, type[DeformBlock]] = {"deform": DeformBlock, "dyhead": DyHeadBlock}


class Fusion(nn.Module):
    """Three fusion blocks of one kind.

    Args:
        kind: `deform` or `dyhead`.
        channels: C of all levels.
        compatible_offsets: as in `DeformBlock`.
    """

    def __init__(self, kind: str, channels: int, *, compatible_offsets: bool = True) -> None:
        super().__init__()
        block = BLOCKS[kind]
        self.dyhead_blocks = nn.Sequential(
            *(block(channels, compatible_offsets=compatible_offsets) for _ in range(NUM_BLOCKS))
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Fuse the levels.

        Args:
            levels: L maps (B, C, H_l, W_l), the finest first; each has half the rows and columns of the previous one,
                rounded up.

        Returns:
            L maps of the same sizes.

        Raises:
            ValueError: the sizes do not halve.
        """
        sizes = [tuple(level.shape[-2:]) for level in levels]
        for (height, width), coarser in pairwise(sizes):
            if coarser != ((height + 1) // 2, (width + 1) // 2):
                raise ValueError(f"each level must have half the size of the one before, rounded up; given: {sizes}")
        fused: list[Tensor] = self.dyhead_blocks(levels)
        return fused


def _enlarge(coarser: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(coarser, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _total(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
