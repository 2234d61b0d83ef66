"""The encoder: all cells of all maps, each of which reads a few points of each map, layer by layer.

Zhu et al., "Deformable DETR", ICLR 2021, section 4.1. State-dict names are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trackmill.models.ipmot.sizes import DetectorSizes
from trackmill.models.layers.deformable_attention import DeformableAttention


@dataclass(frozen=True, eq=False)
class EncodedMaps:
    """What the decoder reads of B pictures.

    Args:
        memory: (B, S, D): the cells of all maps in row-major order, one map after the other.
        shapes: height and width of each of the L maps.
        padding: (B, S) bool, True where a cell is padding.
        valid_ratios: (B, L, 2) float32: the share of each map's width and height that is no padding.
    """

    memory: Tensor
    shapes: tuple[tuple[int, int], ...]
    padding: Tensor
    valid_ratios: Tensor


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward layer, each with its residual and norm behind it.

    Args:
        sizes: widths.
    """

    def __init__(self, sizes: DetectorSizes) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(sizes.hidden, sizes.levels, sizes.heads, sizes.points)
        self.norm1 = nn.LayerNorm(sizes.hidden)
        self.linear1 = nn.Linear(sizes.hidden, sizes.feedforward)
        self.linear2 = nn.Linear(sizes.feedforward, sizes.hidden)
        self.norm2 = nn.LayerNorm(sizes.hidden)

    def forward(self, cells: Tensor, positions: Tensor, references: Tensor, maps: EncodedMaps) -> Tensor:
        """One layer.

        Args:
            cells: (B, S, D).
            positions: (B, S, D), added where the layer asks.
            references: (B, S, 2) float32, x and y of each cell in 0..1 of the part that is no padding.
            maps: shapes, padding and valid ratios; its memory is not read.

        Returns:
            (B, S, D).
        """
        attended = self.self_attn(cells + positions, references, cells, maps.shapes, maps.padding, maps.valid_ratios)
        cells = self.norm1(cells + attended)
        result: Tensor = self.norm2(cells + self.linear2(self.linear1(cells).relu_()))
        return result


class Encoder(nn.Module):
    """All layers.

    Args:
        sizes: widths and number of layers.
    """

    def __init__(self, sizes: DetectorSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.encoder_layers))

    def forward(self, cells: Tensor, positions: Tensor, maps: EncodedMaps) -> Tensor:
        """(B, S, D) to the same shape; see `EncoderLayer.forward`."""
        references = cell_references(maps.shapes, maps.valid_ratios)
        for layer in self.layers:
            cells = layer(cells, positions, references, maps)
        return cells


def cell_references(shapes: tuple[tuple[int, int], ...], ratios: Tensor) -> Tensor:
    """Centres of all cells, x and y, in 0..1 of the part that is no padding; cells of the padding lie beyond 1.

    Args:
        shapes: height and width of each map.
        ratios: (B, L, 2) float32: the share of each map's width and height that is no padding.

    Returns:
        (B, S, 2) float32.
    """
    centres = []
    for level, (height, width) in enumerate(shapes):
        y = (torch.arange(height, device=ratios.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=ratios.device, dtype=torch.float32) + 0.5) / width
        whole = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1).flatten(0, 1)  # (h w, 2)
        centres.append(whole / ratios[:, level, None])
    return torch.cat(centres, dim=1)
