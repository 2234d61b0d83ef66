"""The three heads on MASA's fused maps: proposals (RPN), object prior (RoI) and tracking embeddings.

Submodules have the names of the official checkpoints, so official weights load as they are: `rpn_head.*`,
`roi_head.bbox_head.*`, `track_head.embed_head.*`. Fresh weights are initialised as in the released configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

ROI_SIZE = 7
"""Cells per side of a pooled region."""

FINEST_SCALE = 56.0
"""Regions with a side (root of the area, pixels) below twice this are pooled from the first level, in any variant."""

ANCHORS_PER_CELL = 3
"""One anchor per aspect ratio (`trackmill.models.layers.anchors`)."""


def roi_levels(boxes: Tensor, num_levels: int) -> Tensor:
    """Pyramid level that each box is pooled from.

    It is `floor(log2(sqrt(width * height) / 56 + 1e-6))`, clamped to the existing levels. 56 fits a first level of
    stride 4, but the released code (default of the RoI extractors) also uses it where the first stride is 8.

    Args:
        boxes: (N, 4) xyxy pixels; an inverted box (x1 < x0 or y1 < y0) counts as empty.
        num_levels: number of levels that regions may come from, the finest first.

    Returns:
        (N,) int64 in 0..num_levels-1.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    scale = torch.sqrt(sides[:, 0] * sides[:, 1])
    return torch.floor(torch.log2(scale / FINEST_SCALE + 1e-6)).clamp(0, num_levels - 1).long()


def roi_align_levels(levels: Sequence[Tensor], strides: Sequence[int], boxes: Sequence[Tensor]) -> Tensor:
    """Pool each box from its level: RoIAlign 7 x 7, half-pixel aligned, one sample per pixel of a cell.

    Args:
        levels: the levels that regions may come from, each (B, C, H_l, W_l).
        strides: pixels per cell of each level.
        boxes: B tensors (N_i, 4), xyxy in pixels of the network's input. Boxes may reach beyond the image or be empty.

    Returns:
        (sum N_i, C, 7, 7), one image after the other.
    """
    counts = torch.tensor([len(each) for each in boxes])
    images = torch.repeat_interleave(torch.arange(len(counts)), counts)
    # Coordinates stay float32 if the maps are half precision, which has steps of half a pixel above 512.
    precise = torch.promote_types(levels[0].dtype, torch.float32)
    flat = torch.cat([each.to(levels[0].device, precise) for each in boxes])  # (N, 4)
    regions = torch.cat([images[:, None].to(flat), flat], dim=1)  # (N, 5): image, x0, y0, x1, y1
    chosen = roi_levels(flat, len(levels))
    pooled = levels[0].new_zeros(len(flat), levels[0].shape[1], ROI_SIZE, ROI_SIZE)
    for index, (level, stride) in enumerate(zip(levels, strides)):
        members = torch.nonzero(chosen == index).flatten()
        if len(members):
            cells = roi_align(
                level.to(precise), regions[members], ROI_SIZE, 1.0 / stride, sampling_ratio=0, aligned=True
            )
            pooled = pooled.index_copy(0, members, cells.to(pooled))
    return pooled


class RpnHead(nn.Module):
    """Objectness and box deltas at every cell of every level (state-dict prefix `rpn_head.`).

    Args:
        channels: C of the levels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, ANCHORS_PER_CELL, 1)
        self.rpn_reg = nn.Conv2d(channels, ANCHORS_PER_CELL * 4, 1)
        for layer in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels (B, C, H_l, W_l) to objectness logits (B, 3, H_l, W_l) and deltas (B, 12, H_l, W_l) of each level."""
        hidden = [torch.relu(self.rpn_conv(level)) for level in levels]
        return [self.rpn_cls(each) for each in hidden], [self.rpn_reg(each) for each in hidden]


class RoiHead(nn.Module):
    """Object or background, and a refined box, for pooled regions (state-dict prefix `roi_head.`).

    Args:
        channels: C of the levels.
        convs: number of 3 x 3 convolutions: 4, followed by one fully connected layer ("Shared4Conv1FC"), or 0, followed
            by two ("Shared2FC").
        hidden: width of the fully connected layers.
    """

    def __init__(self, channels: int, convs: int, hidden: int = 1024) -> None:
        super().__init__()
        self.bbox_head = BoxHead(channels, convs, hidden)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled regions (N, C, 7, 7) to logits (N, 2), column 0 object, column 1 background, and deltas (N, 4)."""
        logits, deltas = self.bbox_head(regions)
        return logits, deltas


class BoxHead(nn.Module):
    """The network of `RoiHead`, with the same arguments."""

    def __init__(self, channels: int, convs: int, hidden: int) -> None:
        super().__init__()
        self.shared_convs = nn.ModuleList(
            NormedConvolution("bn", nn.BatchNorm2d(channels), channels) for _ in range(convs)
        )
        widths = [channels * ROI_SIZE * ROI_SIZE] + [hidden] * (1 if convs else 2)
        self.shared_fcs = nn.ModuleList(_linear(before, after) for before, after in pairwise(widths))
        self.fc_cls = _linear(hidden, 2, std=0.01)
        self.fc_reg = _linear(hidden, 4, std=0.001)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """As `RoiHead.forward`."""
        hidden = regions
        for convolution in self.shared_convs:
            hidden = convolution(hidden)
        hidden = hidden.flatten(1)
        for layer in self.shared_fcs:
            hidden = torch.relu(layer(hidden))
        return self.fc_cls(hidden), self.fc_reg(hidden)


class TrackHead(nn.Module):
    """Appearance embedding of pooled regions (state-dict prefix `track_head.`).

    Args:
        channels: C of the levels.
        hidden: width of the fully connected layer.
        dimensions: D of the embedding.
    """

    def __init__(self, channels: int, hidden: int = 1024, dimensions: int = 256) -> None:
        super().__init__()
        self.embed_head = EmbedHead(channels, hidden, dimensions)

    def forward(self, regions: Tensor) -> Tensor:
        """Pooled regions (N, C, 7, 7) to embeddings (N, D), not normalised."""
        embeddings: Tensor = self.embed_head(regions)
        return embeddings


class EmbedHead(nn.Module):
    """The network of `TrackHead`, with the same arguments: 4 convolutions with group norm, 2 fully connected layers."""

    def __init__(self, channels: int, hidden: int, dimensions: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(NormedConvolution("gn", nn.GroupNorm(32, channels), channels) for _ in range(4))
        self.fcs = nn.ModuleList([_linear(channels * ROI_SIZE * ROI_SIZE, hidden)])
        self.fc_embed = _linear(hidden, dimensions, std=0.01)

    def forward(self, regions: Tensor) -> Tensor:
        """As `TrackHead.forward`."""
        hidden = regions
        for convolution in self.convs:
            hidden = convolution(hidden)
        hidden = hidden.flatten(1)
        for layer in self.fcs:
            hidden = torch.relu(layer(hidden))
        embeddings: Tensor = self.fc_embed(hidden)
        return embeddings


class NormedConvolution(nn.Module):
    """3 x 3 convolution without bias, a norm, ReLU; (N, C, H, W) in and out.

    Args:
        norm_name: name of the norm in the state dict (`bn` or `gn`).
        norm: the norm.
        channels: C of the maps.
    """

    def __init__(self, norm_name: str, norm: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.add_module(norm_name, norm)
        self._norm_name = norm_name

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape. N may be 0, which a batch norm in training mode would refuse."""
        if not len(maps):
            return maps
        return torch.relu(getattr(self, self._norm_name)(self.conv(maps)))


def _linear(before: int, after: int, std: float | None = None) -> nn.Linear:
    """A fully connected layer with zero bias; weights are Xavier-uniform, or normal with `std`."""
    layer = nn.Linear(before, after)
    if std is None:
        nn.init.xavier_uniform_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer
