"""How the outputs of one frame become the track queries of the next: MOTR's way, MeMOTR's, or the output as it is.

`K` queries that are kept, `D` hidden width. What all have in common: a query whose score reaches the threshold looks
next time where its box is now, without gradients; one below it keeps its content and reference, as its person may be
hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trackmill.models.ipmot.decoder import Mlp
from trackmill.models.ipmot.positions import anchor_embedding, inverse_sigmoid
from trackmill.models.ipmot.sizes import DetectorSizes
from trackmill.models.ipmot.variants import Variant


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The queries that are kept, after a frame.

    Args:
        output: (K, D) of the last decoder layer.
        boxes: (K, 4) cx, cy, w, h, without gradients.
        scores: (K,) s, without gradients.
        content: (K, D) that a query keeps where its score is below the threshold.
        reference: (K, 4) logits, or (K, 2) of the plain form, likewise.
        position: (K, D) of the plain form, likewise.
        last_output, long_memory: (K, D) of MeMOTR's update; of a new track: its output, and its content.
    """

    output: Tensor
    boxes: Tensor
    scores: Tensor
    content: Tensor
    reference: Tensor
    position: Tensor | None
    last_output: Tensor | None
    long_memory: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Updated:
    """What they are in the next frame; shapes as in `Candidates`."""

    content: Tensor
    reference: Tensor
    position: Tensor | None = None
    last_output: Tensor | None = None
    long_memory: Tensor | None = None


class QueryUpdate(nn.Module):
    """The update without parameters (`identity`): the output is the next content. Base of the others.

    Args:
        sizes: of the detector.
        threshold: score from which a query is updated.
    """

    def __init__(self, sizes: DetectorSizes, threshold: float) -> None:
        super().__init__()
        self.sizes, self.threshold = sizes, threshold

    def forward(self, kept: Candidates) -> Updated:
        """The next content, reference and memory."""
        seen = (kept.scores >= self.threshold)[:, None]
        return Updated(
            content=torch.where(seen, kept.output, kept.content),
            reference=self.next_reference(kept, seen),
            position=kept.position,
        )

    def next_reference(self, kept: Candidates, seen: Tensor) -> Tensor:
        """Logits of the box where the query is seen, else the reference it has.

        Args:
            kept: the queries.
            seen: (K, 1) bool.
        """
        width = kept.reference.shape[-1]
        boxes = inverse_sigmoid(kept.boxes.float(), self.sizes.clamp)[:, :width]
        return torch.where(seen, boxes, kept.reference).detach()

    def anchors(self, reference: Tensor, dtype: torch.dtype) -> Tensor:
        """Sine embedding (K, 2 D) of the boxes that references (K, 4) stand for."""
        return anchor_embedding(reference.sigmoid(), self.sizes.hidden, self.sizes.anchor_order).to(dtype)


class MotrUpdate(QueryUpdate):
    """`qim`: self-attention among the outputs of kept tracks (Zeng et al., "MOTR", ECCV 2022, section 3.4).

    Queries and keys are the output plus a position: an MLP of the anchor's sine embedding, in the detector's order.
    Then a residual connection, a norm, a feed-forward layer and a norm give the next content.

    The plain form has position vectors in place of anchors. As in MOTR these are what is added, and they move on too:
    by an MLP of the next content, with a residual connection and a norm. Its reference is the centre of the box. [D]:
    decisions made here, as the paper gives no plain form of it.
    """

    def __init__(self, sizes: DetectorSizes, threshold: float) -> None:
        super().__init__(sizes, threshold)
        width = sizes.hidden
        self.attention = nn.MultiheadAttention(width, sizes.heads, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, sizes.feedforward)
        self.linear2 = nn.Linear(sizes.feedforward, width)
        self.norm2 = nn.LayerNorm(width)
        plain = sizes.form == "plain"
        self.position_head = None if plain else Mlp(2 * width, width, width)
        self.next_position = Mlp(width, sizes.feedforward, width) if plain else None
        self.position_norm = nn.LayerNorm(width) if plain else None

    def forward(self, kept: Candidates) -> Updated:
        """See `QueryUpdate.forward`."""
        seen = (kept.scores >= self.threshold)[:, None]
        reference = self.next_reference(kept, seen)
        if self.position_head is None:
            assert kept.position is not None
            position = kept.position
        else:
            position = self.position_head(self.anchors(reference, kept.output.dtype))
        asked = (kept.output + position)[None]
        attended = self.attention(asked, asked, kept.output[None], need_weights=False)[0][0]
        content = self.norm1(kept.output + attended)
        content = self.norm2(content + self.linear2(self.linear1(content).relu()))
        moved = None
        if self.next_position is not None and self.position_norm is not None:
            moved = self.position_norm(position + self.next_position(content))
            moved = torch.where(seen, moved, position)
        return Updated(content=torch.where(seen, content, kept.content), reference=reference, position=moved)


class FeedForward(nn.Module):
    """Two linear layers with a residual connection and a norm, under MeMOTR's names."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, inner)
        self.linear2 = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, values: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        result: Tensor = self.norm(values + self.linear2(self.linear1(values).relu()))
        return result


class MemotrUpdate(QueryUpdate):
    """`memotr`: outputs of two frames are fused and ask a long-term memory (Gao and Wang, "MeMOTR", ICCV 2023).

    The output, weighted by a confidence that it gives itself, and the output of the last frame in which the track was
    seen make the query; the long-term memory makes the key; the output is the value. What comes out is added to the
    memory. The memory itself moves by `rate` towards the output, and never has gradients. Names of parameters are those
    of the published files below `query_updater.`.

    Args:
        rate: weight of the newest output in the memory.
    """

    HEADS = 8
    """Of the attention; the published code sets it apart from the detector's."""

    def __init__(self, sizes: DetectorSizes, threshold: float, rate: float) -> None:
        super().__init__(sizes, threshold)
        width, inner = sizes.hidden, sizes.feedforward
        self.rate = rate
        self.confidence_weight_net = nn.Sequential(Mlp(width, width, width), nn.Sigmoid())
        self.short_memory_fusion = Mlp(2 * width, 2 * width, width)
        self.memory_attn = nn.MultiheadAttention(width, self.HEADS, batch_first=True)
        self.memory_norm = nn.LayerNorm(width)
        self.memory_ffn = FeedForward(width, inner)
        self.query_feat_norm = nn.LayerNorm(width)
        self.query_feat_ffn = FeedForward(width, inner)
        self.query_pos_head = Mlp(2 * width, width, width)

    def forward(self, kept: Candidates) -> Updated:
        """See `QueryUpdate.forward`."""
        assert kept.last_output is not None and kept.long_memory is not None
        seen = (kept.scores >= self.threshold)[:, None]
        reference = self.next_reference(kept, seen)
        position = self.query_pos_head(self.anchors(reference, kept.output.dtype))
        memory, output = kept.long_memory.detach(), kept.output
        weighted = self.confidence_weight_net(output) * output
        fused = self.short_memory_fusion(torch.cat([weighted, kept.last_output], dim=-1))
        asked, known = (fused + position)[None], (memory + position)[None]
        attended = self.memory_attn(asked, known, output[None], need_weights=False)[0][0]
        read = self.memory_ffn(self.memory_norm(output + attended))
        content = self.query_feat_ffn(self.query_feat_norm(memory + read))
        newer = (1 - self.rate) * memory + self.rate * output.detach()
        return Updated(
            content=torch.where(seen, content, kept.content),
            reference=reference,
            position=kept.position,
            last_output=torch.where(seen, output, kept.last_output),
            long_memory=torch.where(seen, newer, memory),
        )


def make_query_update(variant: Variant) -> QueryUpdate:
    """The update of a variant with fresh weights: matrices by Glorot's rule (uniform), as in MOTR and MeMOTR."""
    sizes, threshold = variant.detector, variant.keep_threshold
    if variant.track_update == "qim":
        update: QueryUpdate = MotrUpdate(sizes, threshold)
    elif variant.track_update == "memotr":
        update = MemotrUpdate(sizes, threshold, variant.memory_rate)
    else:
        update = QueryUpdate(sizes, threshold)
    for parameter in update.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    return update
