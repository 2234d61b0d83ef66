"""The encoder: it adapts each of the backbone's maps on its own, by deformable attention within the map.

Paper, section 3.4.1 and Eq. 3. A level is projected to D channels, normalised, and goes through its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trackmill.models.layers.deformable_attention import DeformableAttention
from trackmill.models.layers.sine import sine
from trackmill.models.scaletrack.area import Area
from trackmill.models.scaletrack.positions import cell_positions
from trackmill.models.scaletrack.variants import Variant


@dataclass(frozen=True, eq=False)
class Memory:
    """What the encoder made of F frames.

    Args:
        levels: the L maps, each (F, H_l W_l, D); level `deepest` is M_L of the paper.
        shapes: H_l and W_l of each.
        strides: pixels per cell of each.
        deepest: index of the level that boxes are pooled from.
        area: where the pictures lie in the frames.
    """

    levels: list[Tensor]
    shapes: list[tuple[int, int]]
    strides: list[int]
    deepest: int
    area: Area

    def padding(self) -> Tensor | None:
        """(F, S) bool: True where a cell of any level is padding."""
        masks = [self.area.padding(shape, stride) for shape, stride in zip(self.shapes, self.strides)]
        return None if self.area.sizes is None else torch.cat([mask for mask in masks if mask is not None], dim=1)

    def on_levels(self, boxes: Tensor) -> Tensor:
        """Points or boxes (N, 2 or 4) in 0..1 of the padded frame as (N, L, 2 or 4) in 0..1 of each level.

        The two differ where a level's last cells reach beyond the frame, as those of an extra level may.
        """
        scales = []
        for (rows, columns), stride in zip(self.shapes, self.strides):
            ends = [self.area.width / (columns * stride), self.area.height / (rows * stride)]
            scales.append(torch.cat([boxes.new_full((1,), end) for end in ends]))
        return boxes[:, None] * torch.stack(scales).repeat(1, boxes.shape[1] // 2)


class Encoder(nn.Module):
    """All levels of the encoder.

    Args:
        variant: widths and switches.
        channels: C_l of the maps that are encoded, the deepest last.
        strides: pixels per cell of these.
    """

    def __init__(self, variant: Variant, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        width, self.width = variant.channels, variant.channels
        self.deepest = len(channels) - 1
        self.strides = [*strides, *(strides[-1] * 2 ** (extra + 1) for extra in range(variant.extra_levels))]
        projections = [_projection(each, width, 1) for each in channels]
        for index in range(variant.extra_levels):
            projections.append(_projection(width if index else channels[-1], width, 3))
        levels = len(projections)
        self.projections = nn.ModuleList(projections)
        self.norms = nn.ModuleList(MaskedGroupNorm(variant.norm_groups, width) for _ in range(levels))
        self.layers: nn.ModuleList | None = None
        if variant.encoder:
            stacks = 1 if variant.shared_encoder else levels
            self.layers = nn.ModuleList(EncoderStack(variant) for _ in range(stacks))
            self.level_embedding = nn.Parameter(torch.randn(levels, width))

    def forward(self, maps: Sequence[Tensor], area: Area) -> Memory:
        """Maps (F, C_l, H_l, W_l) to what the decoder reads."""
        levels: list[Tensor] = []
        shapes: list[tuple[int, int]] = []
        above, stride_above = maps[-1], self.strides[self.deepest]
        for index, (projection, norm, stride) in enumerate(zip(self.projections, self.norms, self.strides)):
            if index < len(maps):
                projected = projection(maps[index])
            else:
                above = projected = projection(_without_padding(above, area, stride_above))
                stride_above = stride
            shape = (projected.shape[2], projected.shape[3])
            padding = area.padding(shape, stride)
            tokens = norm(projected.flatten(2), padding).transpose(1, 2)
            levels.append(self._encode(index, tokens, shape, area.cells(stride), padding))
            shapes.append(shape)
        return Memory(levels, shapes, self.strides, self.deepest, area)

    def _encode(
        self, index: int, tokens: Tensor, shape: tuple[int, int], cells: Tensor | None, padding: Tensor | None
    ) -> Tensor:
        if self.layers is None:
            return tokens
        position = sine(cell_positions(shape, cells, tokens), self.width // 2)  # (1 or F, S, D)
        position = (position + self.level_embedding[index]).to(tokens.dtype)
        # A point in the middle of each cell, in 0..1 of the padded map.
        references = cell_positions(shape, None, tokens).flip(-1)  # (1, S, 2): x, y
        encoded: Tensor = self.layers[index % len(self.layers)](tokens, position, references, shape, padding)
        return encoded


class EncoderStack(nn.ModuleList):
    """The layers of one level; arguments as in `EncoderLayer`.

    Args:
        variant: gives the widths.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__(EncoderLayer(variant) for _ in range(variant.encoder_layers))

    def forward(
        self, tokens: Tensor, position: Tensor, references: Tensor, shape: tuple[int, int], padding: Tensor | None
    ) -> Tensor:
        for layer in self:
            tokens = layer(tokens, position, references, shape, padding)
        return tokens


class EncoderLayer(nn.Module):
    """Deformable attention within one map, then a feed-forward layer; a norm behind each.

    Args:
        variant: gives the widths.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(variant.channels, 1, variant.heads, variant.points)
        self.dropout = nn.Dropout(variant.dropout)
        self.norm1 = nn.LayerNorm(variant.channels)
        self.feedforward = FeedForward(variant)

    def forward(
        self, tokens: Tensor, position: Tensor, references: Tensor, shape: tuple[int, int], padding: Tensor | None
    ) -> Tensor:
        """Cells (F, S, D) with position embeddings and reference points (1, S, 2) to the same shape."""
        query = tokens + position
        points = references.expand(len(query), -1, -1)
        attended = self.self_attn(query, points, tokens, [shape], padding)
        result: Tensor = self.feedforward(self.norm1(tokens + self.dropout(attended)))
        return result


class FeedForward(nn.Module):
    """Two linear layers with a residual connection and a norm; (..., D) in and out.

    Args:
        variant: gives the widths.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.linear1 = nn.Linear(variant.channels, variant.feedforward)
        self.linear2 = nn.Linear(variant.feedforward, variant.channels)
        self.dropout = nn.Dropout(variant.dropout)
        self.norm = nn.LayerNorm(variant.channels)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.dropout(torch.relu(self.linear1(tokens)))
        result: Tensor = self.norm(tokens + self.dropout(self.linear2(hidden)))
        return result


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm whose statistics leave padded cells out, so that padding does not change a picture's features."""

    def forward(self, values: Tensor, padding: Tensor | None = None) -> Tensor:
        """Maps (F, C, S), with (F, S) bool, True where a cell is padding, to the same shape."""
        if padding is None:
            return super().forward(values)
        precise = torch.promote_types(values.dtype, torch.float32)
        grouped = values.to(precise).unflatten(1, (self.num_groups, -1))  # (F, groups, C / groups, S)
        counts = (~padding).to(precise)[:, None, None]
        number = counts.sum((2, 3), keepdim=True) * grouped.shape[2]
        mean = (grouped * counts).sum((2, 3), keepdim=True) / number
        centred = grouped - mean
        variance = (centred.square() * counts).sum((2, 3), keepdim=True) / number
        normed = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        scaled: Tensor = normed * self.weight[:, None] + self.bias[:, None]
        return scaled.to(values.dtype)


def _projection(before: int, width: int, kernel: int) -> nn.Conv2d:
    """To D channels: 1 x 1, or 3 x 3 to half the size."""
    layer = nn.Conv2d(before, width, kernel, stride=1 if kernel == 1 else 2, padding=kernel // 2)
    nn.init.xavier_uniform_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _without_padding(maps: Tensor, area: Area, stride: int) -> Tensor:
    """Maps (F, C, H, W) with zeros where padding is, as beyond the border of a map."""
    padding = area.padding((maps.shape[2], maps.shape[3]), stride)
    if padding is None:
        return maps
    return maps.masked_fill(padding.view(len(maps), 1, *maps.shape[2:]), 0.0)
