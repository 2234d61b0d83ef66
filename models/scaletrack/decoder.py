"""The decoder: from the content of a box to its embedding, layer by layer (paper, section 3.4.2).

Boxes never read each other, so an embedding does not depend on which other boxes are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trackmill.models.layers.deformable_attention import DeformableAttention
from trackmill.models.layers.sine import sine
from trackmill.models.scaletrack.encoder import FeedForward, Memory
from trackmill.models.scaletrack.fusion import History, TemporalFusion
from trackmill.models.scaletrack.pooling import SpatialPooling
from trackmill.models.scaletrack.variants import Variant


@dataclass(frozen=True, eq=False)
class Queries:
    """The boxes of all frames, as every layer needs them.

    Args:
        regions: (N, D, size, size): pooled from the deepest level of the box's frame.
        boxes: (N, 4) float32 cx, cy, w, h in 0..1 of the padded frame.
        relative: (N, 4) the same in 0..1 of the picture.
        frame_of_box: (N,) int64.
    """

    regions: Tensor
    boxes: Tensor
    relative: Tensor
    frame_of_box: Tensor


class DecoderLayer(nn.Module):
    """Spatial pooling, temporal fusion, modulation, cross-attention: each where the variant has it.

    Args:
        variant: widths and switches.
        levels: L of the encoder.
    """

    def __init__(self, variant: Variant, levels: int) -> None:
        super().__init__()
        self.spatial = SpatialPooling(variant) if variant.spatial else None
        self.norm = nn.LayerNorm(variant.channels)
        self.temporal = TemporalFusion(variant) if variant.temporal else None
        self.modulation = Modulation(variant.channels, variant.heads) if variant.modulation else None
        self.cross_attention = CrossAttention(variant, levels) if variant.cross_attention else None

    def forward(self, queries: Queries, before: Tensor | None, memory: Memory, history: History | None) -> Tensor:
        """Embeddings (N, D), from those of the layer before."""
        content = queries.regions.mean((2, 3)) if self.spatial is None else self.spatial(queries.regions)
        content = self.norm(content if before is None else content + before)
        if self.temporal is not None:
            assert history is not None
            content = self.temporal(content, queries.boxes, history)
        if self.modulation is not None:
            content = self.modulation(content)
        if self.cross_attention is not None:
            content = self.cross_attention(content, queries, memory)
        result: Tensor = content
        return result


class Modulation(nn.Module):
    """Scales each channel by the mean of the heads' gates (Eq. 8); (N, D) in and out.

    Args:
        channels: D.
        heads: gates.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.gates = nn.Linear(channels, heads * channels, bias=False)

    def forward(self, content: Tensor) -> Tensor:
        gates: Tensor = self.gates(content).sigmoid().unflatten(1, (self.heads, -1)).mean(1)
        return gates * content


class CrossAttention(nn.Module):
    """Deformable attention to all levels of the box's frame, then a feed-forward layer (Eq. 9).

    Args:
        variant: gives the widths.
        levels: L of the encoder.
    """

    def __init__(self, variant: Variant, levels: int) -> None:
        super().__init__()
        width = variant.channels
        self.width, self.reference = width, variant.cross_reference
        self.position = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
        self.attention = DeformableAttention(width, levels, variant.heads, variant.points)
        self.dropout = nn.Dropout(variant.dropout)
        self.norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(variant)

    def forward(self, content: Tensor, queries: Queries, memory: Memory) -> Tensor:
        """(N, D) to the same shape."""
        position = self.position(sine(queries.relative, self.width // 2).to(self.norm.weight.dtype))
        references = queries.boxes if self.reference == "box" else queries.boxes[:, :2]
        attended = self.attention(
            content + position,
            memory.on_levels(references),
            torch.cat(memory.levels, dim=1),  # Eq. 3
            memory.shapes,
            memory.padding(),
            owner=queries.frame_of_box,
        )
        result: Tensor = self.feedforward(self.norm(content + self.dropout(attended)))
        return result


class Decoder(nn.Module):
    """All layers.

    Args:
        variant: widths and switches.
        levels: L of the encoder.
    """

    def __init__(self, variant: Variant, levels: int) -> None:
        super().__init__()
        self.pass_queries, self.detach_history = variant.pass_queries, variant.detach_history
        self.window = variant.window
        self.layers = nn.ModuleList(DecoderLayer(variant, levels) for _ in range(variant.decoder_layers))

    def forward(
        self, queries: Queries, memory: Memory, deepest: Tensor, clips: int, earlier: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Decode.

        Args:
            queries: the boxes.
            memory: of the F = B * T frames, T of each clip.
            deepest: (F, H W, D): the deepest level, padding filled.
            clips: B.
            earlier: None, or (layers, window, H W, D): what this method gave for the frames before; B is 1 then.

        Returns:
            Embeddings (N, D) of each layer, and `earlier` for the frames that follow (None without temporal fusion, or
            if there are several clips).
        """
        embeddings: list[Tensor] = []
        remembered: list[Tensor] = []
        shape = memory.shapes[memory.deepest]
        before: Tensor | None = None
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            history = None
            if layer.temporal is not None:
                values = layer.temporal.values(deepest.detach() if self.detach_history else deepest)
                rows = window_rows(queries.frame_of_box, len(values) // clips, self.window, earlier is not None)
                known = values if earlier is None else torch.cat([earlier[index].to(values), values])
                history = History(known, shape, rows)
                if clips == 1:
                    start = values[:1].expand(self.window, -1, -1) if earlier is None else earlier[index].to(values)
                    remembered.append(torch.cat([start, values])[-self.window :])
            content = layer(queries, before, memory, history)
            embeddings.append(content)
            before = content if self.pass_queries else None
        return embeddings, torch.stack(remembered) if remembered else None


def window_rows(frame_of_box: Tensor, num_frames: int, window: int, follows: bool) -> Tensor:
    """The frames that each box sees, as rows of a table of maps, the oldest first: (N, window) int64.

    These are the frames before the box's own. Where a clip has fewer, its first one is repeated; in the first frame,
    the frame itself.

    Args:
        frame_of_box: (N,) int64: frames of all clips, one clip after the other.
        num_frames: T of each clip.
        window: frames seen.
        follows: the table has one clip, and begins with the `window` frames before it.
    """
    slots = torch.arange(window, device=frame_of_box.device)
    time = frame_of_box % num_frames
    if follows:
        return time[:, None] + slots
    first = frame_of_box - time
    return first[:, None] + (time[:, None] - window + slots).clamp(min=0)
