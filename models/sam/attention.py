"""Attention between a few tokens and many image tokens, without projecting the image tokens.

Letters: n prompts of a sub-batch, T tokens a prompt, S = h*w image tokens, C channels, H heads of d channels each,
J = H*T. `x` are tokens, `z` image tokens, `p` the image's positional encoding.

Attention of tokens to the image (`TokensToImage`), head h, with q = (x Wq' + bq) / sqrt(d):

    score[t, s] = q[t] . Wk (z[s] + p[s]) + q[t] . bk
                = (q[t] Wk) . z[s] + q[t] . (Wk p[s]) + const(t)      const leaves the softmax as it is: dropped
    output[t]   = sum_s a[t, s] (Wv z[s] + bv) = Wv (sum_s a[t, s] z[s]) + bv         because sum_s a[t, s] = 1

so the S image tokens are never projected: the products read J = 56 vectors of C channels instead of 2 x 4096.
`Wk p` is computed once per model.

Attention of the image to tokens (`ImageToTokens`), with k = x Wk' / sqrt(d), the bias dropped for the same reason:

    score[s, t] = (Wq (z[s] + p[s]) + bq) . k[t] = (k[t] Wq) . z[s] + k[t] . (Wq p[s] + bq)
    output[s]   = bo + Wo concat_h(sum_t a[s, t] v[t]) = sum_h sum_t a[h, s, t] (Wo_h v_h[t] + bo / H)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _Heads:
    """The projections of an attention, split by head. The scale 1 / sqrt(d) applies to the side of the tokens."""

    def __init__(self, attention: Any) -> None:
        self.num_heads: int = attention.num_heads
        self.scale = (attention.internal_dim // self.num_heads) ** -0.5
        self.attention = attention

    def split(self, x: Tensor) -> Tensor:
        """(n, T, H*d) -> (H, n*T, d)."""
        heads: Tensor = x.flatten(0, 1).unflatten(1, (self.num_heads, -1)).transpose(0, 1)
        return heads

    def by_prompt(self, x: Tensor, num_prompts: int) -> Tensor:
        """(H, n*T, D) -> (n, H*T, D): a view for one prompt, else a copy."""
        prompts: Tensor = x.unflatten(1, (num_prompts, -1)).transpose(0, 1).flatten(1, 2)
        return prompts

    def rows(self, weight: Tensor) -> Tensor:
        """(H*d, C) weight of a projection -> (H, d, C)."""
        heads: Tensor = weight.detach().unflatten(0, (self.num_heads, -1))
        return heads


class TokensToImage(_Heads):
    """Tokens attend to the image; the equations are at the top of this file.

    Args:
        attention: segment-anything's module for the attention of tokens to the image.
        positions: (S, C) positional encoding of the image.
        dtype: dtype of the products with image tokens.
    """

    def __init__(self, attention: Any, positions: Tensor, dtype: torch.dtype) -> None:
        super().__init__(attention)
        self.dtype = dtype
        self.key_weight = self.rows(attention.k_proj.weight)  # (H, d, C)
        self.value_weight = self.rows(attention.v_proj.weight).transpose(1, 2)  # (H, C, d)
        self.positions = self._keys(positions).to(dtype)  # (H, d, S)
        output = attention.out_proj
        self.output_weight = output.weight.detach()
        self.output_bias = (output.bias + output.weight @ attention.v_proj.bias).detach()

    def _keys(self, z: Tensor) -> Tensor:
        return self.key_weight @ z.T

    def share(self, keys: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (H, d, S) and values (H, S, d) of (S, C) image tokens that all prompts share."""
        return self._keys(keys + positions).to(self.dtype), (keys @ self.value_weight).to(self.dtype)

    def _queries(self, x: Tensor) -> Tensor:
        return self.split(self.attention.q_proj(x) * self.scale)  # (H, n*T, d)

    def _output(self, values: Tensor, num_prompts: int) -> Tensor:
        merged = values.transpose(0, 1).flatten(1).unflatten(0, (num_prompts, -1))  # (n, T, H*d)
        return F.linear(merged, self.output_weight, self.output_bias)

    def attend_shared(self, x: Tensor, shared: tuple[Tensor, Tensor]) -> Tensor:
        """(n, T, C) tokens with positions added -> (n, T, C). `shared` are the keys and values from `share`."""
        keys, values = shared
        scores = torch.bmm(self._queries(x).to(self.dtype), keys)  # (H, n*T, S)
        return self._output(torch.bmm(scores.softmax(-1), values).float(), len(x))

    def attend(self, x: Tensor, keys: Tensor) -> Tensor:
        """(n, T, C) tokens with positions added, and (n, S, C) image tokens without positions -> (n, T, C)."""
        num_prompts = len(x)
        queries = self._queries(x)
        scores = self.by_prompt(torch.bmm(queries.to(self.dtype), self.positions), num_prompts)  # (n, J, S)
        folded = self.by_prompt(torch.bmm(queries, self.key_weight), num_prompts).to(self.dtype)  # (n, J, C)
        scores.baddbmm_(folded, keys.transpose(1, 2))
        gathered = torch.bmm(scores.softmax(-1), keys).float()  # (n, J, C)
        by_head = gathered.unflatten(1, (self.num_heads, -1)).transpose(0, 1).flatten(1, 2)  # (H, n*T, C)
        return self._output(torch.bmm(by_head, self.value_weight), num_prompts)


class ImageToTokens(_Heads):
    """The image attends to tokens; the equations are at the top of this file. Arguments as for `TokensToImage`."""

    def __init__(self, attention: Any, positions: Tensor, dtype: torch.dtype) -> None:
        super().__init__(attention)
        self.dtype = dtype
        self.query_weight = self.rows(attention.q_proj.weight)  # (H, d, C)
        self.query_bias: Tensor = attention.q_proj.bias.detach().view(self.num_heads, -1, 1)
        self.positions = self.share(positions)  # (H, d, S)
        self.key_weight = attention.k_proj.weight.detach()
        self.output_weight = self.rows(attention.out_proj.weight.T)  # (H, d, C)
        self.output_bias = attention.out_proj.bias.detach() / self.num_heads

    def share(self, z: Tensor) -> Tensor:
        """Queries (H, d, S) of (S, C) image tokens, or of their positions, that all prompts share."""
        return (self.query_weight @ z.T + self.query_bias).to(self.dtype)

    def add_shared(self, x_with_positions: Tensor, x: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Attend to (n, T, C) tokens and add the output to (S, C) `keys`: (n, S, C). `queries` come from `share`."""
        scores = self._scores(self._keys(x_with_positions), queries, len(x))
        return self._add(scores, x, keys.expand(len(x), -1, -1))

    def add(self, x_with_positions: Tensor, x: Tensor, keys: Tensor) -> Tensor:
        """Attend to (n, T, C) tokens and add the output to (n, S, C) `keys` in place."""
        num_prompts = len(x)
        tokens = self._keys(x_with_positions)
        scores = self._scores(tokens, self.positions, num_prompts)  # (n, J, S)
        folded = self.by_prompt(torch.bmm(tokens, self.query_weight), num_prompts).to(self.dtype)  # (n, J, C)
        return self._add(scores.baddbmm_(folded, keys.transpose(1, 2)), x, keys, in_place=True)

    def _keys(self, x: Tensor) -> Tensor:
        return self.split(F.linear(x, self.key_weight) * self.scale)  # (H, n*T, d)

    def _scores(self, tokens: Tensor, queries: Tensor, num_prompts: int) -> Tensor:
        return self.by_prompt(torch.bmm(tokens.to(self.dtype), queries), num_prompts)  # (n, J, S)

    def _add(self, scores: Tensor, x: Tensor, keys: Tensor, in_place: bool = False) -> Tensor:
        # The token axis stands before S: the softmax over T then works on whole vectors of S without a transpose.
        weights = scores.unflatten(1, (self.num_heads, -1)).softmax(2).flatten(1, 2)
        values = torch.bmm(self.split(self.attention.v_proj(x)), self.output_weight) + self.output_bias[None, None]
        folded = self.by_prompt(values, len(x)).to(self.dtype)  # (n, J, C)
        if in_place:
            return keys.baddbmm_(weights.transpose(1, 2), folded)
        return torch.baddbmm(keys, weights.transpose(1, 2), folded)
