"""SAM 1 as a `PromptableSegmenter`: segment-anything's weights and preprocessing, our encoder and decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from trackmill.models.sam.decoder import FoldedDecoder
from trackmill.models.sam.encoder import FastEncoder
from trackmill.models.sam.modules import can_fold, decode_with_modules
from trackmill.models.sam.segmenter import Decoded, Features, PreparedImage, ResizeChain, ResizeStage
from trackmill.schemas.errors import InputError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PATCH = 16
"""Side in pixels of the patch that becomes one token, in every SAM."""
_COMPILED_PROMPTS = 64
"""Prompts per sub-batch of a compiled decoder on a GPU, so that one graph serves calls of any number of prompts."""


class Sam1Segmenter:
    """A `PromptableSegmenter` around segment-anything's `Sam`.

    The masks equal those of `SamPredictor` up to rounding. Points stay float64 until they are encoded, as in the
    reference's generator; boxes are float32, as in `SamPredictor.predict`.

    Modules of other classes than segment-anything's are called as they are; an `image_encoder` of another class needs
    an attribute `img_size`. The model's parameters are not changed. The constructor computes products of its weights,
    and they are computed again after the model moved to another device. After a change of weights make a new segmenter.

    Args:
        sam: the model, on its device, in evaluation mode.
        precision: "float32" or "bfloat16". "bfloat16" runs the large products of the encoder and the decoder in it,
            which changes masks a little. Predicted IoU, LayerNorm, MLPs of mask tokens and the final product stay in
            float32.
        compiled: `torch.compile` the encoder and the decoder's transformer. The decoder is compiled for one number of
            prompts, to which calls are padded; the encoder for each number of pictures. The first calls wait for it.
        exact: call segment-anything's modules as they are: logits equal to the last bit, at several times the cost.

    Raises:
        ValueError: `precision` is unknown, or `exact` comes with bfloat16 or `compiled`.
    """

    def __init__(
        self,
        sam: Sam,
        *,
        precision: Literal["float32", "bfloat16"] = "float32",
        compiled: bool = False,
        exact: bool = False,
    ) -> None:
        if precision not in _DTYPES:
            raise InputError(f"precision = {precision!r} is unknown; use one of {', '.join(map(repr, _DTYPES))}")
        if exact and (precision != "float32" or compiled):
            raise InputError("exact means segment-anything's own float32 arithmetic: leave precision and compiled")
        self._sam = sam
        self._dtype = _DTYPES[precision]
        self._compiled = compiled
        self._exact = exact
        self._resize = ResizeLongestSide(self.image_size)
        self.mask_threshold = float(sam.mask_threshold)
        self._fold()

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return torch.device(self._sam.device)

    @property
    def image_size(self) -> int:
        """Side in pixels of the encoder's square input."""
        return int(self._sam.image_encoder.img_size)

    def prepare(self, image: NDArray[np.uint8]) -> PreparedImage:
        """Scale a picture as `SamPredictor.set_image` does: (3, h, w) uint8.

        Raises:
            ValueError: the picture is so thin that scaling to the model's size leaves no pixel of its short side.
        """
        size = (image.shape[0], image.shape[1])
        self._refuse_thin(*size)
        return PreparedImage(size=size, pixels=torch.from_numpy(self._resize.apply_image(image)).permute(2, 0, 1))

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8] | PreparedImage]) -> list[Features]:
        """Encode pictures of any sizes in one batch, (H, W, 3) uint8 RGB or prepared.

        Raises:
            ValueError: see `prepare`.
            torch.OutOfMemoryError: the pictures do not fit on the device at once.
        """
        if not images:
            return []
        self._follow_device()
        prepared = [image if isinstance(image, PreparedImage) else self.prepare(image) for image in images]
        inputs = [self._sam.preprocess(each.pixels.to(self.device)) for each in prepared]
        embeddings = self._encoder(torch.stack(inputs))
        features = []
        for each, embedding in zip(prepared, embeddings):
            scaled = (each.pixels.shape[1], each.pixels.shape[2])
            chain = self._chain(scaled, each.size)
            features.append(Features(embedding=embedding, size=each.size, input_size=scaled, chain=chain))
        return features

    @torch.inference_mode()
    def decode(
        self,
        features: Features,
        *,
        points: NDArray[np.float64] | None = None,
        boxes: NDArray[np.float64] | None = None,
        iou_above: float | None = None,
    ) -> Decoded:
        """Decode prompts to masks, each prompt on its own; arguments as in `PromptableSegmenter.decode`.

        `logits` hold whole image tokens (4 x 4 low-resolution pixels each), as many as the `ResizeChain` reads.

        Raises:
            ValueError: neither or both of points and boxes are given, or they have another shape.
            torch.OutOfMemoryError: the prompts do not fit on the device at once.
        """
        self._follow_device()
        if self._decoder is None:
            coords, corners = self._coordinates(features.size, points, boxes)
            return decode_with_modules(self._sam, features.embedding, coords, corners, iou_above)
        return self._decoder(
            features.embedding,
            self._embed(features.size, points, boxes),
            multimask=points is not None,
            tokens_read=tokens_read(features.chain),
            iou_above=iou_above,
        )

    def _fold(self) -> None:
        self._folded_for = self.device
        encoder = self._sam.image_encoder if self._exact else FastEncoder(self._sam.image_encoder, self._dtype)
        self._encoder = torch.compile(encoder, dynamic=False) if self._compiled else encoder
        self._decoder: FoldedDecoder | None = None
        if self._exact or not can_fold(self._sam):
            return
        together = _COMPILED_PROMPTS if self._compiled and self.device.type != "cpu" else None
        self._decoder = FoldedDecoder(
            self._sam.mask_decoder,
            self._sam.prompt_encoder,
            dtype=self._dtype,
            compiled=self._compiled,
            num_together=together,
        )

    def _follow_device(self) -> None:
        if self.device != self._folded_for:
            self._fold()

    def _refuse_thin(self, height: int, width: int) -> None:
        if min(height, width) < 1 or min(self._resize.get_preprocess_shape(height, width, self.image_size)) < 1:
            raise ValueError(
                f"a picture of {width} x {height} pixels (width x height) has nothing left of its short side when its "
                f"long side becomes {self.image_size}: leave it out or crop it"
            )

    def _chain(self, input_size: tuple[int, int], size: tuple[int, int]) -> ResizeChain:
        grid = self.image_size // _PATCH if self._decoder is None else self._decoder.grid[0]
        return sam_chain(grid, self.image_size, input_size, size)

    def _embed(
        self, size: tuple[int, int], points: NDArray[np.float64] | None, boxes: NDArray[np.float64] | None
    ) -> Tensor:
        """(N, 2, C) float32 embeddings of a point and its padding, or of two corners."""
        coords, corners = self._coordinates(size, points, boxes)
        sparse: Tensor = self._sam.prompt_encoder(points=coords, boxes=corners, masks=None)[0]
        return sparse

    def _coordinates(
        self, size: tuple[int, int], points: NDArray[np.float64] | None, boxes: NDArray[np.float64] | None
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        """Points (N, 1, 2) float64 with labels (N, 1), or boxes (N, 4) float32, in pixels of the model's input."""
        if (points is None) == (boxes is None):
            raise ValueError("decode needs points or boxes, and not both")
        if points is not None:
            _check_shape("points", points, 2)
            coords = torch.as_tensor(self._resize.apply_coords(points, size), device=self.device)
            return (coords[:, None], torch.ones(len(coords), 1, dtype=torch.int, device=self.device)), None
        assert boxes is not None
        _check_shape("boxes", boxes, 4)
        corners = self._resize.apply_boxes(boxes, size)
        return None, torch.as_tensor(corners, dtype=torch.float, device=self.device)


def sam_chain(grid: int, image_size: int, input_size: tuple[int, int], size: tuple[int, int]) -> ResizeChain:
    """How SAM's own code resizes masks: `Sam.postprocess_masks`.

    Args:
        grid: image tokens per side; low-resolution masks have four pixels per token and axis.
        image_size: side of the encoder's input.
        input_size: (H, W) of the picture in it.
        size: (H, W) of the picture.
    """
    stages = (ResizeStage(size=(image_size, image_size), keep=input_size), ResizeStage(size=size, keep=size))
    return ResizeChain(source=(4 * grid, 4 * grid), stages=stages)


def tokens_read(chain: ResizeChain) -> tuple[int, int]:
    """(rows, columns) of the upper left image tokens whose pixels a `sam_chain` reads."""
    first = chain.stages[0]
    height, width = (
        math.ceil(num_read(source, size, keep) / 4) for source, size, keep in zip(chain.source, first.size, first.keep)
    )
    return height, width


def num_read(source: int, size: int, keep: int) -> int:
    """How many leading pixels of `source` a bilinear resize to `size` reads to make its first `keep` pixels.

    The last target pixel lies at (keep - 1/2) source / size - 1/2 in the source, between two pixels that are both read.
    """
    # Torch rounds the position to float32 and may read one pixel more, with a weight of almost 0; 1e-3 allows for it.
    position = max((keep - 0.5) * source / size - 0.5, 0.0) + 1e-3
    return min(math.floor(position) + 2, source)


def _check_shape(name: str, prompts: NDArray[np.float64], columns: int) -> None:
    if prompts.ndim != 2 or prompts.shape[1] != columns:
        raise ValueError(f"{name} must be (N, {columns}), not {prompts.shape}")
