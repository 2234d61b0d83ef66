"""The contract of a promptable segmenter: encode pictures to features, decode prompts to low-resolution logits.

The steps after the logits (thresholds, boxes, duplicates, small regions, run lengths) are the same for every model and
live in `trackmill.models.sam.mask_generation`. Logits stay at the decoder's resolution; `ResizeChain` describes how the
model's own code would resize them to the picture.

Letters: B pictures, N prompts, K masks a prompt, M masks kept, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ResizeStage:
    """One bilinear resize (`align_corners=False`, no antialiasing), then a crop.

    Args:
        size: (H, W) to resize to.
        keep: (H, W) of the upper left part of the result that is kept.
    """

    size: tuple[int, int]
    keep: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ResizeChain:
    """How a low-resolution mask becomes a mask of the picture's size.

    Args:
        source: (H, W) of the whole low-resolution mask, (256, 256) for SAM.
        stages: resizes in order; the last one keeps the picture's size. SAM has two: to 1024 x 1024, cropped to the
            scaled picture, then to the picture. SAM 2 has one.
    """

    source: tuple[int, int]
    stages: tuple[ResizeStage, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        return self.stages[-1].keep


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """A picture that is scaled for the encoder, on the CPU.

    Args:
        size: (H, W) of the picture before scaling.
        pixels: (3, h, w) scaled; the segmenter chooses the dtype.
    """

    size: tuple[int, int]
    pixels: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One encoded picture.

    Args:
        embedding: (C, h, w) image embedding, on the model's device.
        size: (H, W) of the picture.
        input_size: (H, W) of the scaled picture that the encoder read, without padding.
        chain: how the decoder's masks become masks of the picture.
        high_resolution: finer feature maps that the decoder of SAM 2 also reads, each (C_i, h_i, w_i); empty for SAM.
    """

    embedding: Tensor
    size: tuple[int, int]
    input_size: tuple[int, int]
    chain: ResizeChain
    high_resolution: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The masks of N prompts.

    Args:
        iou: (N, K) float32 predicted IoU of every mask, including masks without logits.
        kept: (M,) int64 positions in `iou.flatten()` of the masks in `logits`, ascending.
        logits: (M, rows, columns) float32, the upper left part of each low-resolution mask. It covers at least what the
            picture covers; the rest is padding that no resize reads.
        source: (H, W) of a whole low-resolution mask if it differs from `source` of the features' chain.
    """

    iou: Tensor
    kept: Tensor
    logits: Tensor
    source: tuple[int, int] | None = None

    def chain(self, features: Features) -> ResizeChain:
        """How the logits become masks of the picture that was encoded as `features`."""
        return features.chain if self.source is None else replace(features.chain, source=self.source)


class PromptableSegmenter(Protocol):
    """A model that predicts masks from points or boxes."""

    mask_threshold: float
    """Pixels with a logit above it are inside the mask."""

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the encoder's square input."""

    def prepare(self, image: NDArray[np.uint8]) -> PreparedImage:
        """Scale an (H, W, 3) uint8 RGB picture on the CPU. Any thread may call it while the model runs.

        Raises:
            ValueError: the picture cannot be scaled to the model's size.
        """

    def encode(self, images: Sequence[NDArray[np.uint8] | PreparedImage]) -> list[Features]:
        """Encode pictures of any sizes in one batch, (H, W, 3) uint8 RGB or prepared."""

    def decode(
        self,
        features: Features,
        *,
        points: NDArray[np.float64] | None = None,
        boxes: NDArray[np.float64] | None = None,
        iou_above: float | None = None,
    ) -> Decoded:
        """Decode prompts to masks, each prompt on its own. Give points or boxes, not both.

        Args:
            features: one encoded picture.
            points: (N, 2) xy of foreground points in pixels of the picture; K = 3 masks for each.
            boxes: (N, 4) `xyxy` in pixels of the picture; K = 1 mask for each.
            iou_above: only masks whose predicted IoU is above it get logits; None: all masks do.

        Raises:
            torch.OutOfMemoryError: the prompts do not fit on the device at once.
        """
