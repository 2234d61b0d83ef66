"""The transformer of both towers of CLIP: pre-norm residual blocks with QuickGELU, under OpenAI's names of tensors."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64
"""Numbers of an attention head, in every published CLIP."""


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): OpenAI's approximation, with which their weights were trained."""

    def forward(self, values: Tensor) -> Tensor:
        return values * torch.sigmoid(1.702 * values)


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values.

    Args:
        width: of a token.
        heads: that the width is divided into.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def forward(self, values: Tensor, causal: bool) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        projected = F.linear(values, self.in_proj_weight, self.in_proj_bias)
        # (N, T, 3 D) -> three of (N, heads, T, D / heads)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projected.chunk(3, -1))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class ResidualBlock(nn.Module):
    """Attention and an MLP four times as wide, each on normed values and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=QuickGELU(), c_proj=nn.Linear(4 * width, width))
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, values: Tensor, causal: bool) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        values = values + self.attn(self.ln_1(values), causal)
        out: Tensor = values + self.mlp(self.ln_2(values))
        return out


class Transformer(nn.Module):
    """Residual blocks, one after another.

    Args:
        width: of a token, D.
        layers: number of blocks.
        heads: of each attention.
    """

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualBlock(width, heads) for _ in range(layers))

    def forward(self, values: Tensor, causal: bool = False) -> Tensor:
        """(N, T, D) tokens; `causal`: each sees itself and those before it. Returns (N, T, D)."""
        for block in self.resblocks:
            values = block(values, causal)
        return values
