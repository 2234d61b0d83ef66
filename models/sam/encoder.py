"""SAM's image encoder with fused attention: the same results without whole attention matrices in memory.

Letters: B pictures (or windows), h x w tokens a picture, L = h*w, C channels, H heads of d channels.

The relative positions of segment-anything's encoder add to the score of query (y, x) and key (y', x')

    rel_h[y, x, y'] + rel_w[y, x, x'],    rel_h[y, x, y'] = q[y, x] . R_h[y, y'],    rel_w likewise.

There are two ways to pass them to fused attention. `attend_biased` passes them as a bias, which it writes out for a few
heads or queries at a time. `attend_augmented` adds channels: with q' = [q / sqrt(d), rel_h, rel_w] and
k' = [k, onehot(y'), onehot(x')] the product q' . k' is the whole score. Then no L x L matrix exists at all, but the
products have d + h + w channels.

ViT-B, float32, one CPU thread, CPU ms of an attention without its projections (minimum of 2 or 3 interleaved runs):

    reference / bias for all heads / bias in pieces / augmented
    global layer, 4096 tokens, 12 heads          2719 / 1201 / 870 / 1890
    25 windows of 14 x 14, 12 heads               175 /   97 /  71 /  117

So on a CPU all layers use the bias in pieces. Elsewhere global layers use more channels, since a bias of all heads of
ViT-H takes 1 GB per picture in float32, and windowed layers use the bias. The choice for GPUs was not measured.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos, window_partition, window_unpartition
from torch import Tensor, nn

from trackmill.models.sam.modules import untouched

_BIAS_ELEMENTS = 2**21
"""Elements of the largest piece of a bias on a CPU: 8 MB, so that it is still in the cache when attention reads it."""


class FastEncoder(nn.Module):
    """An image encoder with fused attention. Encoders of any class but `ImageEncoderViT` are called as they are.

    Args:
        encoder: the encoder. With float32 its parameters are shared, not copied.
        dtype: torch.float32, or torch.bfloat16 for the products; the latter makes a copy of the weights. Normalisation
            and the residual sums stay in float32. Encoders of other classes run under autocast instead.
    """

    def __init__(self, encoder: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.known = untouched(encoder, ImageEncoderViT, "forward")
        if self.known and dtype != torch.float32:
            encoder = copy.deepcopy(encoder)
            for module in encoder.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.to(dtype)
        self.encoder = encoder

    def forward(self, batch: Tensor) -> Tensor:
        """(B, 3, side, side) float32 preprocessed pictures -> (B, C, h, w) float32 embeddings."""
        if not self.known:
            with torch.autocast(batch.device.type, self.dtype, enabled=self.dtype != torch.float32):
                embedded: Tensor = self.encoder(batch).float()
                return embedded
        encoder: Any = self.encoder
        dtype = self.dtype
        x: Tensor = encoder.patch_embed(batch.to(dtype)).float()  # (B, h, w, C)
        if encoder.pos_embed is not None:
            x = x + encoder.pos_embed
        for block in encoder.blocks:
            x = self._block(block, x)
        x = x.permute(0, 3, 1, 2)
        for layer in encoder.neck:
            x = layer(x.float() if isinstance(layer, LayerNorm2d) else x.to(dtype))
        return x.float()

    def _block(self, block: Block, x: Tensor) -> Tensor:
        attended = block.norm1(x)
        size = block.window_size
        if size:
            windows, padded = window_partition(attended, size)
            attended = window_unpartition(self._attend(block.attn, windows, False), size, padded, x.shape[1:3])
        else:
            attended = self._attend(block.attn, attended, x.device.type != "cpu")
        x = x + attended
        mlp = block.mlp
        added: Tensor = x + mlp.lin2(mlp.act(mlp.lin1(block.norm2(x).to(self.dtype))))
        return added

    def _attend(self, attention: Attention, x: Tensor, augmented: bool) -> Tensor:
        batch, h, w, _ = x.shape
        qkv = attention.qkv(x.to(self.dtype)).view(batch, h * w, 3, attention.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, L, d) each
        if not attention.use_rel_pos:
            attended = F.scaled_dot_product_attention(q, k, v)
        else:
            tables = [get_rel_pos(n, n, rel.float()) for n, rel in ((h, attention.rel_pos_h), (w, attention.rel_pos_w))]
            attended = attend_augmented(q, k, v, *tables) if augmented else attend_biased(q, k, v, *tables)
        projected: Tensor = attention.proj(attended.transpose(1, 2).reshape(batch, h, w, -1))
        return projected


def attend_biased(q: Tensor, k: Tensor, v: Tensor, table_h: Tensor, table_w: Tensor) -> Tensor:
    """Attention with relative positions as a bias; on a CPU in pieces of at most `_BIAS_ELEMENTS`.

    Args:
        q, k, v: (B, H, L, d), the L = h*w tokens in row-major order.
        table_h: (h, h, d) float32 relative positions, by the row of the query and the row of the key.
        table_w: (w, w, d) float32 relative positions, likewise by column.

    Returns:
        (B, H, L, d).
    """
    batch, heads, length, _ = q.shape
    rel_h, rel_w = (rel.flatten(0, 1) for rel in _relative(q, table_h, table_w))  # (B*H, L, h), (B*H, L, w)
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    together, queries = len(q), length
    if q.device.type == "cpu":
        together = max(1, min(together, _BIAS_ELEMENTS // length**2))
        queries = max(1, min(length, _BIAS_ELEMENTS // (together * length)))
    found = torch.empty_like(q)
    for i in range(0, len(q), together):
        one = slice(i, i + together)
        for j in range(0, length, queries):
            some = slice(j, j + queries)
            bias = (rel_h[one, some, :, None] + rel_w[one, some, None, :]).flatten(2)
            # Fused attention needs four axes; B*H stands in the place of the heads.
            found[one, some] = F.scaled_dot_product_attention(
                q[None, one, some], k[None, one], v[None, one], attn_mask=bias[None]
            )[0]
    return found.view(batch, heads, length, -1)


def attend_augmented(q: Tensor, k: Tensor, v: Tensor, table_h: Tensor, table_w: Tensor) -> Tensor:
    """Attention with relative positions as further channels; arguments and result as for `attend_biased`."""
    d, h, w = q.shape[-1], len(table_h), len(table_w)
    rel_h, rel_w = _relative(q, table_h, table_w)
    rows = torch.eye(h, dtype=q.dtype, device=q.device).repeat_interleave(w, dim=0)  # (L, h)
    columns = torch.eye(w, dtype=q.dtype, device=q.device).repeat(h, 1)  # (L, w)
    onehot = torch.cat([rows, columns], dim=1).expand(*k.shape[:2], -1, -1)
    # Flash attention takes multiples of eight channels, as many in the values as in the keys.
    spare = -(d + h + w) % 8
    queries = F.pad(torch.cat([q * d**-0.5, rel_h, rel_w], dim=-1), (0, spare))
    keys = F.pad(torch.cat([k, onehot], dim=-1), (0, spare))
    found = F.scaled_dot_product_attention(queries, keys, F.pad(v, (0, h + w + spare)), scale=1.0)
    return found[..., :d]


def _relative(q: Tensor, table_h: Tensor, table_w: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, L, h) and (B, H, L, w): what relative positions add to a query's score for each row and column of keys."""
    grid = q.unflatten(2, (len(table_h), len(table_w)))
    rel_h = torch.einsum("bnhwc,hkc->bnhwk", grid, table_h.to(q.dtype))
    rel_w = torch.einsum("bnhwc,wkc->bnhwk", grid, table_w.to(q.dtype))
    return rel_h.flatten(2, 3), rel_w.flatten(2, 3)
