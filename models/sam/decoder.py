"""SAM's mask decoder with fewer operations: the products are rearranged so that few of them touch all image tokens.

Letters: n prompts of a sub-batch, T tokens a prompt, S = h*w image tokens, C channels, H heads of d channels each,
J = H*T. `x` are tokens, `z` image tokens, `p` the image's positional encoding.

The equations are those of `trackmill.models.sam.attention`. In the first layer all prompts share z, so Wk (z + p), Wv z
and Wq (z + p) are computed once per picture.

Upscaling: a transposed convolution of kernel 2 and stride 2 does not overlap, so two of them turn each token into 4 x 4
pixels of its own. That is one product per token with channels last, and tokens that are not needed are not upscaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, PromptEncoder
from torch import Tensor, nn

from trackmill.models.sam.attention import ImageToTokens, TokensToImage
from trackmill.models.sam.segmenter import Decoded

CPU_PROMPTS = 1
"""Prompts per sub-batch on a CPU, so that the 4 MB of a prompt's image tokens stay in the cache.

ViT-B's decoder, float32, one thread, CPU ms per prompt with 1, 2, 4, 8 and 16 prompts: 39.5, 40.8, 38.1, 43.6, 47.3
(minimum of 4 interleaved runs on a shared machine). 1 to 4 take the same time; 1 needs the least memory and upscales no
mask that is then dropped.
"""


@dataclass(frozen=True, slots=True)
class SharedTokens:
    """Tensors that all prompts of a picture share.

    Args:
        keys: (S, C) image embedding plus the embedding of "no mask".
        attended: (H, d, S) keys and (H, S, d) values that the tokens attend to in the first layer.
        image_queries: (H, d, S) queries of the image tokens, which attend to the tokens in the first layer.
    """

    keys: Tensor
    attended: tuple[Tensor, Tensor]
    image_queries: Tensor


class Upscaling:
    """Upscales image tokens to the channels of a mask, 4 x 4 pixels per token, channels last; see the top of this file.

    Args:
        layers: segment-anything's `output_upscaling`.
        dtype: dtype of the products.
    """

    def __init__(self, layers: nn.Sequential, dtype: torch.dtype) -> None:
        parts: Any = layers
        first, norm, self.activation, second, self.last_activation = parts
        self.weight, self.bias = _as_product(first, dtype)
        self.norm_weight, self.norm_bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
        self.epsilon: float = norm.eps
        self.second_weight, self.second_bias = _as_product(second, dtype)

    def __call__(self, keys: Tensor) -> Tensor:
        """(n, R, C) image tokens -> (n, R*16, C/8) float32: the 4 x 4 pixels of each token as (2, 2) of (2, 2)."""
        pixels = torch.addmm(self.bias, keys.flatten(0, 1), self.weight).view(-1, len(self.norm_weight))
        pixels = F.layer_norm(pixels, self.norm_weight.shape, self.norm_weight, self.norm_bias, self.epsilon)
        pixels = torch.addmm(self.second_bias, self.activation(pixels), self.second_weight)
        channels: Tensor = self.last_activation(pixels).float()
        return channels.view(len(keys), 16 * keys.shape[1], -1)


def _as_product(layer: nn.ConvTranspose2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight (C, O, 2, 2) and bias (O,) of a transposed convolution as (C, 4*O) and (4*O,)."""
    assert layer.bias is not None
    weight = layer.weight.detach().permute(0, 2, 3, 1).flatten(1)
    return weight.to(dtype).contiguous(), layer.bias.detach().repeat(4).to(dtype)


class _Layer:
    """One two-way block: tokens use segment-anything's modules; every product with image tokens uses ours."""

    def __init__(self, block: Any, positions: Tensor, dtype: torch.dtype) -> None:
        self.block = block
        self.to_image = TokensToImage(block.cross_attn_token_to_image, positions, dtype)
        self.to_tokens = ImageToTokens(block.cross_attn_image_to_token, positions, dtype)
        norm = block.norm4
        self._norm = (norm.normalized_shape, norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps)

    def self_attend(self, x: Tensor, positions: Tensor) -> Tensor:
        block = self.block
        if block.skip_first_layer_pe:
            normed: Tensor = block.norm1(block.self_attn(q=x, k=x, v=x))
            return normed
        q = x + positions
        normed = block.norm1(x + block.self_attn(q=q, k=q, v=x))
        return normed

    def apply_mlp(self, x: Tensor) -> Tensor:
        x = self.block.norm2(x)
        normed: Tensor = self.block.norm3(x + self.block.mlp(x))
        return normed

    def norm_image(self, keys: Tensor) -> Tensor:
        return F.layer_norm(keys, *self._norm)


class FoldedDecoder:
    """segment-anything's mask decoder for prompts without masks, of any depth (at least 1), width and number of heads.

    The constructor reads the weights once. The modules that work on tokens only (self-attention, MLPs, norms) are
    called as they are, in float32. After a change of weights or device make a new decoder.

    Args:
        decoder: a `MaskDecoder` around a `TwoWayTransformer`.
        prompts: the model's `PromptEncoder`, which has the grid size, positional encoding and the embedding of "no
            mask".
        dtype: torch.float32, or torch.bfloat16 for the products with image tokens; the final product is in float32.
        compiled: `torch.compile` the transformer. The last sub-batch is then padded to `num_together`; with
            `num_together` None, a GPU compiles once for each new number of prompts.
        num_together: prompts per sub-batch; None: `CPU_PROMPTS` on a CPU, all prompts of a call elsewhere.

    Raises:
        ValueError: the transformer has no layer.
    """

    def __init__(
        self,
        decoder: MaskDecoder,
        prompts: PromptEncoder,
        *,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
        num_together: int | None = None,
    ) -> None:
        transformer = decoder.transformer
        if not len(transformer.layers):
            raise ValueError("the mask decoder's transformer has no layers; use one of depth 1 or more")
        self.decoder = decoder
        self.dtype = dtype
        self.grid: tuple[int, int] = tuple(prompts.image_embedding_size)
        self.num_together = num_together
        with torch.no_grad():
            self._positions = prompts.get_dense_pe()[0].flatten(1).T.contiguous()  # (S, C)
            self._no_mask = prompts.no_mask_embed.weight.detach().clone()  # (1, C)
            self._output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()
            self._layers = [_Layer(block, self._positions, dtype) for block in transformer.layers]
            self._final = TokensToImage(transformer.final_attn_token_to_image, self._positions, dtype)
            self._upscaling = Upscaling(decoder.output_upscaling, dtype)
        self._compiled = compiled
        self._transform = torch.compile(self._run_transformer, dynamic=False) if compiled else self._run_transformer

    def __call__(
        self,
        embedding: Tensor,
        sparse: Tensor,
        *,
        multimask: bool,
        tokens_read: tuple[int, int] | None = None,
        iou_above: float | None = None,
    ) -> Decoded:
        """Masks of N prompts on one picture, as `MaskDecoder.forward` makes them.

        Args:
            embedding: (C, h, w) of the picture.
            sparse: (N, P, C) float32 embeddings of the prompts' points or corners.
            multimask: use mask tokens 1, 2, ... of each prompt; otherwise only token 0.
            tokens_read: (rows, columns) of the upper left image tokens whose masks are wanted; None: all.
            iou_above: only masks whose predicted IoU is above it get logits, and prompts without such a mask are not
                upscaled; None: all masks get logits.

        Returns:
            Logits of 4 x `tokens_read` pixels.
        """
        masks = range(1, self.decoder.num_mask_tokens) if multimask else range(1)
        rows, columns = tokens_read or self.grid
        shared = self._share(embedding)
        ious, chosen, logits = [], [], []
        for part in sparse.split(self._prompts_together(sparse)) if len(sparse) else ():
            tokens, keys = self._pad_and_transform(part, shared, masks)
            iou = self.decoder.iou_prediction_head(tokens[:, 0])[:, masks.start : masks.stop]  # (n, K)
            wanted = torch.ones_like(iou, dtype=torch.bool) if iou_above is None else iou > iou_above
            ious.append(iou)
            chosen.append(wanted)
            # `all()` waits for the device; without a threshold that is avoided.
            if iou_above is not None:
                drawn = wanted.any(1)
                if not drawn.all():
                    tokens, keys, wanted = tokens[drawn], keys[drawn], wanted[drawn]
            if len(tokens):
                logits.append(self._draw(tokens[:, 1:], keys, wanted, masks, rows, columns))
        # The empty tensors keep `cat` working for calls without prompts or masks.
        iou = torch.cat([sparse.new_zeros(0, len(masks)), *ious])
        kept = torch.cat([iou.new_zeros(0, len(masks), dtype=torch.bool), *chosen]).flatten().nonzero()[:, 0]
        return Decoded(iou=iou, kept=kept, logits=torch.cat([iou.new_zeros(0, 4 * rows, 4 * columns), *logits]))

    def _prompts_together(self, sparse: Tensor) -> int:
        return self.num_together or (CPU_PROMPTS if sparse.device.type == "cpu" else len(sparse))

    def _share(self, embedding: Tensor) -> SharedTokens:
        keys = embedding.float().flatten(1).T + self._no_mask  # (S, C)
        first = self._layers[0]
        return SharedTokens(
            keys=keys.to(self.dtype).contiguous(),
            attended=first.to_image.share(keys, self._positions),
            image_queries=first.to_tokens.share(keys + self._positions),
        )

    def _pad_and_transform(self, sparse: Tensor, shared: SharedTokens, masks: range) -> tuple[Tensor, Tensor]:
        num_prompts = len(sparse)
        missing = self._prompts_together(sparse) - num_prompts
        # A compiled graph accepts one number of prompts only.
        if self._compiled and missing:
            sparse = torch.cat([sparse, sparse[:1].expand(missing, -1, -1)])
        tokens, keys = self._transform(sparse, shared.keys, *shared.attended, shared.image_queries, masks)
        return tokens[:num_prompts], keys[:num_prompts]

    def _run_transformer(
        self,
        sparse: Tensor,
        keys: Tensor,
        attended_keys: Tensor,
        attended_values: Tensor,
        image_queries: Tensor,
        masks: range,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (n, 1 + K, C) of the IoU and of the masks `masks`, and image tokens (n, S, C)."""
        positions = torch.cat([self._output_tokens.expand(len(sparse), -1, -1), sparse], dim=1)
        x = positions  # (n, T, C)
        for i, layer in enumerate(self._layers):
            x = layer.self_attend(x, positions)
            if i == 0:
                attended = layer.to_image.attend_shared(x + positions, (attended_keys, attended_values))
            else:
                attended = layer.to_image.attend(x + positions, keys)
            x = layer.apply_mlp(x + attended)
            if i == 0:
                keys = layer.to_tokens.add_shared(x + positions, x, image_queries, keys)
            else:
                keys = layer.to_tokens.add(x + positions, x, keys)
            keys = layer.norm_image(keys)
        # The last attention does not mix tokens with each other, so tokens that are not needed are left out.
        x, positions = (torch.cat([y[:, :1], y[:, 1 + masks.start : 1 + masks.stop]], dim=1) for y in (x, positions))
        return self.decoder.transformer.norm_final_attn(x + self._final.attend(x + positions, keys)), keys

    def _draw(self, tokens: Tensor, keys: Tensor, wanted: Tensor, masks: range, rows: int, columns: int) -> Tensor:
        """(M, 4*rows, 4*columns) logits of the masks in `wanted` (n, K), from their tokens (n, K, C)."""
        networks = self.decoder.output_hypernetworks_mlps[masks.start : masks.stop]
        hyper = torch.stack([network(tokens[:, i]) for i, network in enumerate(networks)], dim=1)  # (n, K, C/8)
        keys = keys.unflatten(1, self.grid)[:, :rows, :columns].flatten(1, 2)
        pixels = self._upscaling(keys)  # (n, 16*rows*columns, C/8)
        if len(hyper) == 1:
            logits = hyper[wanted] @ pixels[0].T  # (M, 16*rows*columns)
        else:
            # Prompts keep different numbers of masks: computing all K costs less than one kernel launch per prompt.
            logits = torch.bmm(hyper, pixels.transpose(1, 2))[wanted]
        blocks = logits.view(-1, rows, columns, 2, 2, 2, 2)  # then y, x of each upscaling
        return blocks.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 6).flatten(1, 3)
