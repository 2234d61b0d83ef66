"""The deduplication module: which queries stay where two of them found the same person (section 3.4, Eq. 5)."""

from __future__ import annotations

import math

from torch import Tensor, nn


class Deduplication(nn.Module):
    """One layer of self-attention over all queries, then an MLP of two layers: a confidence for each query.

    No position enters, as Eq. 5 has none: queries of one person are alike in content.

    Args:
        hidden: D.
        heads: attention heads.
        residual: [D] adds the query's own output and normalises. Without it, as Eq. 5 is printed, a query sees itself
            through the attention alone.
    """

    PRIOR = 0.01
    """[D] confidence of every query in the beginning: most are to go (focal loss, Lin et al. 2017, section 4.1)."""

    def __init__(self, hidden: int, heads: int = 8, *, residual: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.norm = nn.LayerNorm(hidden) if residual else None
        self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, -math.log((1 - self.PRIOR) / self.PRIOR))

    def forward(self, outputs: Tensor) -> Tensor:
        """Deduplication confidence d.

        Args:
            outputs: (Q, D) of the last decoder layer, detect and track queries.

        Returns:
            (Q,) logits, high for queries that stay.
        """
        attended = self.attention(outputs[None], outputs[None], outputs[None], need_weights=False)[0][0]
        mixed = attended if self.norm is None else self.norm(outputs + attended)
        confidence: Tensor = self.mlp(mixed)
        return confidence[:, 0]
