"""Masks of given boxes by SAM's mask decoder, on the features that MASA has already computed (paper, section 3.2.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.detectors.frame_features import FrameFeatures, RunFeatures
from models.masa.backbones.sam import SamDetector
from schemas.boxes import Boxes
from schemas.masks import CroppedMask, crop_mask

_MASK_THRESHOLD = 0.0
"""Of the logits; `Sam.mask_threshold`."""
_PIXELS_AT_ONCE = 1 << 26
"""Of all masks that are scaled up together: 256 MiB in float32."""


class SamMasks:
    """Segments what each box holds: the box is the only prompt, and SAM's single-mask output is taken.

    Args:
        features: a model on SAM's encoder, and its maps.

    Raises:
        ValueError: a variant without SAM.
    """

    def __init__(self, features: FrameFeatures) -> None:
        detector = getattr(features.model, "detector", None)
        if not isinstance(detector, SamDetector):
            raise ValueError(
                f"{features.model.variant.name} has no mask decoder: masks need masa_sam_vitb or masa_sam_vith"
            )
        self._features, self._sam = features, detector

    @torch.inference_mode()
    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]
    ) -> list[tuple[CroppedMask | None, ...]]:
        """The mask of each box.

        Args:
            images: B arrays (H, W, 3) uint8 RGB.
            boxes: B arrays (N_i, 4) float32 `xyxy` in pixels of each image.

        Returns:
            N_i masks of each image, in its pixels; None where no pixel is left.
        """
        found: list[tuple[CroppedMask | None, ...]] = []
        for run in self._features.of(images):
            embeddings = self._sam.image_embedding(run.maps)  # (B, 256, 64, 64)
            for embedding, prompts in zip(embeddings, boxes[run.frames], strict=True):
                found.append(self._of_image(embedding[None], prompts, run))
        return found

    def _of_image(self, embedding: Tensor, boxes: Boxes, run: RunFeatures) -> tuple[CroppedMask | None, ...]:
        prompts = torch.from_numpy(boxes * run.factors).to(embedding)
        at_once = max(1, _PIXELS_AT_ONCE // max(run.size[0] * run.size[1], self._sam.backbone.img_size**2))
        masks: list[CroppedMask | None] = []
        for chunk in prompts.split(at_once):
            if len(chunk):
                pixels = self._logits(embedding, chunk, run) > _MASK_THRESHOLD
                masks += [crop_mask(mask) for mask in pixels.cpu().numpy()]
        return tuple(masks)

    def _logits(self, embedding: Tensor, prompts: Tensor, run: RunFeatures) -> Tensor:
        """(N, H, W) at the frame's own size; steps of segment-anything's `Sam.forward` and `postprocess_masks`."""
        sparse, dense = self._sam.prompt_encoder(points=None, boxes=prompts, masks=None)
        low, _ = self._sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )  # (N, 1, 256, 256)
        side = self._sam.backbone.img_size
        full = functional.interpolate(low, (side, side), mode="bilinear", align_corners=False)
        full = full[..., : run.scaled[0], : run.scaled[1]]  # without the padding
        return functional.interpolate(full, run.size, mode="bilinear", align_corners=False)[:, 0]
