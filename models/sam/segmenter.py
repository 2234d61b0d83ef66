"""The contract of a promptable segmenter: pictures in, features out; prompts in, low-resolution logits out.

What comes after the logits (thresholds, boxes, duplicates, small regions, run lengths) is the same for every model and
lives in `trackmill.models.sam.generator`. Logits stay at the decoder's own resolution; `ResizeChain` says how the
model's own code would bring them to the picture's.

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
    """One bilinear resize (`align_corners=False`, no antialiasing), then a cut.

    Args:
        size: (H, W) to resize to.
        keep: (H, W) that stay of the result, from its upper left corner.
    """

    size: tuple[int, int]
    keep: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ResizeChain:
    """How a mask of `source` pixels becomes a mask of the picture's; the last stage keeps the picture's size.

    Args:
        source: (H, W) of the whole low-resolution mask, (256, 256) for SAM.
        stages: resizes in order. SAM: to 1024 x 1024, cut to the scaled picture, then to the picture. SAM 2: one.
    """

    source: tuple[int, int]
    stages: tuple[ResizeStage, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        return self.stages[-1].keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A picture as its encoder wants it, still on the CPU.

    Args:
        size: (H, W) of the picture.
        pixels: (3, h, w), scaled; of the segmenter's own type.
    """

    size: tuple[int, int]
    pixels: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One encoded picture.

    Args:
        embedding: (C, h, w) image embedding, on the model's device.
        size: (H, W) of the picture.
        input_size: (H, W) of the picture as the encoder saw it, without padding.
        chain: see `ResizeChain`.
        high_resolution: finer maps that the decoder also reads (SAM 2), each (C_i, h_i, w_i); empty for SAM.
    """

    embedding: Tensor
    size: tuple[int, int]
    input_size: tuple[int, int]
    chain: ResizeChain
    high_resolution: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Masks of some prompts.

    Args:
        iou: (N, K) float32 predicted IoU of every mask, also of those that were not drawn.
        kept: (M,) int64 positions in `iou.flatten()` of the masks in `logits`, ascending.
        logits: (M, rows, columns) float32, the upper left part of each low-resolution mask: as much of it as the
            picture reaches; the rest is padding that no resize looks at.
        source: (H, W) of a whole low-resolution mask where it is not the one that the features' chain states.
    """

    iou: Tensor
    kept: Tensor
    logits: Tensor
    source: tuple[int, int] | None = None

    def chain(self, features: Features) -> ResizeChain:
        """How the logits become masks of the picture that `features` are of."""
        return features.chain if self.source is None else replace(features.chain, source=self.source)


class Segmenter(Protocol):
    """A model that finds the masks of points or boxes."""

    mask_threshold: float
    """Logits above it are inside the mask."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the square the encoder looks at."""

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """What is done to an (H, W, 3) uint8 RGB picture on the CPU; any thread may do it while the model works.

        Raises:
            ValueError: the picture cannot be brought to the model's size.
        """

    def encode(self, images: Sequence[NDArray[np.uint8] | Prepared]) -> list[Features]:
        """Encode pictures of any sizes together, prepared or not."""

    def decode(
        self,
        features: Features,
        *,
        points: NDArray[np.float64] | None = None,
        boxes: NDArray[np.float64] | None = None,
        iou_above: float | None = None,
    ) -> Decoded:
        """Masks of prompts, each on its own.

        Args:
            features: of one picture.
            points: (N, 2) xy of foreground points, pixels of the picture; K = 3 masks each, or
            boxes: (N, 4) `xyxy` in pixels of the picture; K = 1 mask each.
            iou_above: masks whose predicted IoU is not above it are not drawn; None: all are.

        Raises:
            torch.OutOfMemoryError: too many prompts for the device.
        """
