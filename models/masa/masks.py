"""Masks of given boxes by SAM's mask decoder, on the features that MASA has already computed (paper, section 3.2.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trackmill.models.backbones.sam import SamDetector
from trackmill.models.detectors.segmenter import BoxSegmenter
from trackmill.models.masa.frame_features import FrameFeatures, RunFeatures
from trackmill.models.sam.decoder import FoldedDecoder
from trackmill.models.sam.records import cropped_mask
from trackmill.models.sam.sam1 import sam_chain, tokens_read
from trackmill.models.sam.scan import Place, Thresholds, scan
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import CroppedMask

_MASKS_ONLY = Thresholds(mask=0.0, high=0.0, low=0.0)
"""Of the logits; `Sam.mask_threshold`. Stability is not asked for."""
_PROMPTS_AT_ONCE = 256
"""On a GPU: 1 GB of image tokens in float32."""


class SamMasks(BoxSegmenter):
    """Segments what each box holds: the box is the only prompt, and SAM's single-mask output is taken.

    Masks are those of segment-anything's `Sam.forward`, made as `trackmill.models.sam` makes them.

    Args:
        features: a model on SAM's encoder, and its maps.

    Raises:
        ValueError: a variant without SAM.
    """

    def __init__(self, features: FrameFeatures) -> None:
        detector = getattr(features.model, "detector", None)
        if not isinstance(detector, SamDetector):
            raise InputError(
                f"{features.model.variant.name} has no mask decoder: masks need masa_sam_vitb or masa_sam_vith"
            )
        self._features, self._sam = features, detector
        self._decoder: FoldedDecoder | None = None
        self._folded_for: torch.device | None = None

    @torch.inference_mode()
    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]
    ) -> list[tuple[CroppedMask | None, ...]]:
        """See `BoxSegmenter.segment`."""
        masks: list[tuple[CroppedMask | None, ...]] = []
        for run in self._features.of(images):
            embeddings = self._sam.image_embedding(run.maps)  # (B, 256, 64, 64)
            for embedding, prompts in zip(embeddings, boxes[run.frames], strict=True):
                masks.append(self._of_image(embedding, prompts, run))
        return masks

    def _of_image(self, embedding: Tensor, boxes: Boxes, run: RunFeatures) -> tuple[CroppedMask | None, ...]:
        decoder = self._folded(embedding.device)
        chain = sam_chain(decoder.grid[0], self._sam.backbone.img_size, run.scaled, run.size)
        prompts = torch.from_numpy(boxes * run.factors).to(embedding)
        masks: list[CroppedMask | None] = []
        for chunk in prompts.split(_PROMPTS_AT_ONCE):
            sparse, _ = self._sam.prompt_encoder(points=None, boxes=chunk, masks=None)
            drawn = decoder(embedding, sparse, multimask=False, tokens_read=tokens_read(chain))
            logits = drawn.logits.cpu().numpy()
            scanned = scan(logits, chain, _MASKS_ONLY, Place(0, 0, *run.size), channels=1)
            masks += [cropped_mask(intervals, run.size) for intervals in scanned.intervals]
        return tuple(masks)

    def _folded(self, device: torch.device) -> FoldedDecoder:
        """The decoder's folded weights; made at the first frame, when the model is where it stays."""
        if self._decoder is None or self._folded_for != device:
            self._decoder = FoldedDecoder(self._sam.mask_decoder, self._sam.prompt_encoder)
            self._folded_for = device
        return self._decoder
