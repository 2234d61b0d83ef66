"""Decoding with a `Sam` whose prompt encoder or mask decoder was replaced: its modules are called as they are."""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from trackmill.models.sam.segmenter import Decoded


def can_fold(sam: Sam) -> bool:
    """Whether `FoldedDecoder` may replace the decoder: all modules are segment-anything's own classes, unpatched."""
    decoder, prompts = sam.mask_decoder, sam.prompt_encoder
    return (
        untouched(decoder, MaskDecoder, "forward", "predict_masks")
        and untouched(decoder.transformer, TwoWayTransformer, "forward")
        and untouched(prompts, PromptEncoder, "forward", "get_dense_pe")
    )


def untouched(module: nn.Module, kind: type[nn.Module], *methods: str) -> bool:
    """Whether a module is of exactly this class, without hooks, and none of these methods was replaced on it."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return type(module) is kind and not any(hooks) and not any(name in vars(module) for name in methods)


def decode_with_modules(
    sam: Sam, embedding: Tensor, points: Any, boxes: Tensor | None, iou_above: float | None
) -> Decoded:
    """Low-resolution masks of prompts, as `SamPredictor.predict_torch` decodes them.

    Args:
        sam: the model.
        embedding: (C, h, w) embedding of one picture.
        points: (N, 1, 2) coordinates in pixels of the model's input and (N, 1) labels, or None.
        boxes: (N, 4) in pixels of the model's input, or None.
        iou_above: leaves out masks whose predicted IoU is not above it; None: leaves out none.
    """
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=None)
    logits, iou = sam.mask_decoder(
        image_embeddings=embedding[None],
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=boxes is None,
    )  # (N, K, side, side), (N, K)
    wanted = torch.ones_like(iou, dtype=torch.bool) if iou_above is None else iou > iou_above
    source = (logits.shape[2], logits.shape[3])
    return Decoded(iou=iou.float(), kept=wanted.flatten().nonzero()[:, 0], logits=logits[wanted].float(), source=source)
