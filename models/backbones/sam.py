"""SAM as MASA's frozen detector: segment-anything's modules; the adapter reads the outputs of four encoder blocks.

State-dict names are SAM's, but the image encoder is called `backbone` (released code, detectors/sam_masa.py).
"""

from __future__ import annotations

from segment_anything import sam_model_registry
from torch import Tensor, nn

TAPS = {"vit_b": (2, 5, 8, 11), "vit_h": (7, 15, 23, 31)}
"""Blocks (0-based) whose outputs are returned; the last one is the encoder's output before its neck."""


class SamDetector(nn.Module):
    """Image encoder, prompt encoder and mask decoder of SAM.

    Args:
        size: `vit_b` or `vit_h`.
    """

    def __init__(self, size: str) -> None:
        super().__init__()
        sam = sam_model_registry[size]()
        self.backbone = sam.image_encoder
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.taps = TAPS[size]

    def forward(self, batch: Tensor) -> list[Tensor]:
        """(B, 3, 1024, 1024) normalised to four maps (B, C, 64, 64): raw outputs of the tapped blocks."""
        tokens = self.backbone.patch_embed(batch) + self.backbone.pos_embed  # (B, 64, 64, C)
        maps = []
        for index, block in enumerate(self.backbone.blocks):
            tokens = block(tokens)
            if index in self.taps:
                maps.append(tokens.permute(0, 3, 1, 2))
        return maps

    def image_embedding(self, maps: list[Tensor]) -> Tensor:
        """The mask decoder's input (B, 256, 64, 64), computed from `forward`'s maps without a second encoder run."""
        embedding: Tensor = self.backbone.neck(maps[-1])
        return embedding
