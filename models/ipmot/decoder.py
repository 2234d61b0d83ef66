"""The decoder: queries attend to each other, then each reads a few points of the maps, layer by layer.

Liu et al., "DAB-DETR", ICLR 2022, section 4, on the layers of Zhu et al., "Deformable DETR", ICLR 2021. State-dict
names are the published ones.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from trackmill.models.ipmot.encoder import EncodedMaps
from trackmill.models.ipmot.positions import anchor_embedding
from trackmill.models.ipmot.sizes import DetectorSizes
from trackmill.models.layers.deformable_attention import DeformableAttention


class Mlp(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        widths: of the input, of each hidden layer, and of the output.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, values: Tensor) -> Tensor:
        """(..., first width) to (..., last width)."""
        for layer in self.layers[:-1]:
            values = layer(values).relu_()
        result: Tensor = self.layers[-1](values)
        return result


class DecoderLayer(nn.Module):
    """Self-attention of the queries, deformable attention to the maps, and a feed-forward layer.

    Args:
        sizes: widths.
    """

    def __init__(self, sizes: DetectorSizes) -> None:
        super().__init__()
        self.cross_attn = DeformableAttention(sizes.hidden, sizes.levels, sizes.heads, sizes.points)
        self.norm1 = nn.LayerNorm(sizes.hidden)
        self.self_attn = nn.MultiheadAttention(sizes.hidden, sizes.heads, batch_first=True)
        self.norm2 = nn.LayerNorm(sizes.hidden)
        self.linear1 = nn.Linear(sizes.hidden, sizes.feedforward)
        self.linear2 = nn.Linear(sizes.feedforward, sizes.hidden)
        self.norm3 = nn.LayerNorm(sizes.hidden)

    def forward(self, content: Tensor, position: Tensor, references: Tensor, maps: EncodedMaps) -> Tensor:
        """One layer.

        Args:
            content: (B, Q, D).
            position: (B, Q, D), added where the layer asks.
            references: (B, Q, 4) float32, boxes cx, cy, w, h, or (B, Q, 2), points x, y; in 0..1 of the picture.
            maps: of the B pictures.

        Returns:
            (B, Q, D).
        """
        asked = content + position
        attended, _ = self.self_attn(asked, asked, content, need_weights=False)
        content = self.norm2(content + attended)
        read = self.cross_attn(
            content + position, references, maps.memory, maps.shapes, maps.padding, maps.valid_ratios
        )
        content = self.norm1(content + read)
        result: Tensor = self.norm3(content + self.linear2(self.linear1(content).relu_()))
        return result


class Decoder(nn.Module):
    """All layers, and in the dab form what makes positions of anchors.

    Args:
        sizes: widths and number of layers.
    """

    def __init__(self, sizes: DetectorSizes) -> None:
        super().__init__()
        width = sizes.hidden
        self.width, self.order = width, sizes.anchor_order
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.decoder_layers))
        self.query_scale = Mlp(width, width, width) if sizes.form == "dab" else None
        self.ref_point_head = Mlp(2 * width, width, width) if sizes.form == "dab" else None

    def positions(self, layer: int, content: Tensor, references: Tensor, maps: EncodedMaps) -> Tensor:
        """Positions of the queries of a layer of the dab form, from their boxes and, behind the first, their content.

        Args:
            layer: its number, from 0.
            content: (B, Q, D) as it enters the layer.
            references: (B, Q, 4) float32.
            maps: of the B pictures.

        Returns:
            (B, Q, D).
        """
        assert self.query_scale is not None and self.ref_point_head is not None
        # The published code embeds boxes in 0..1 of the first map with its padding, not of the picture.
        on_map = references * maps.valid_ratios[:, :1].repeat(1, 1, 2)
        embedded = anchor_embedding(on_map, self.width, self.order)
        raw: Tensor = self.ref_point_head(embedded.to(content.dtype))
        return raw if layer == 0 else self.query_scale(content) * raw
