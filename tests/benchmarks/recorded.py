"""Realistic masks under a model with made-up weights: it does all its work, and then recorded logits take their place.

Random weights give masks that nobody would keep, and a benchmark of keeping masks that shows nothing. So predicted IoUs
and logits are painted once a prompt (`tests.parity.synthetic`) and swapped in where the decoder returns, on both sides.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from segment_anything.modeling import MaskDecoder, Sam
from segment_anything.utils.amg import build_point_grid
from torch import Tensor, nn

from tests.parity.synthetic import Painter
from trackmill.models.sam import FastMaskGenerator


class Recording:
    """Predicted IoUs (N, 3) and logits (N, 3, side, side) of a grid's points, handed out in the grid's order."""

    def __init__(self, points_per_side: int, size: tuple[int, int], image_size: int = 1024, seed: int = 0) -> None:
        side = image_size // 4
        painter = Painter(seed, side, image_size, ("blobs", "blobs", "blobs", "specks"))
        scale = image_size / max(size)
        points = build_point_grid(points_per_side) * np.array([[size[1] * scale, size[0] * scale]])
        painted = [painter._paint(point.tolist(), True) for point in points]
        self.logits = torch.from_numpy(np.stack([logits for logits, _ in painted]))
        self.iou = torch.from_numpy(np.stack([iou for _, iou in painted]))
        self._next = 0

    def to(self, device: str) -> Recording:
        """The same on another device."""
        moved = copy.copy(self)
        moved.logits, moved.iou = self.logits.to(device), self.iou.to(device)
        return moved

    def rewind(self) -> None:
        """The next prompt is the first one."""
        self._next = 0

    def take(self, num_prompts: int) -> slice:
        """The next prompts; after the last one comes the first one again."""
        begin = self._next % len(self.iou)
        self._next = begin + num_prompts
        return slice(begin, self._next)


class RecordedDecoder(MaskDecoder):
    """segment-anything's decoder: does its work and returns what was recorded."""

    recording: Recording

    def forward(self, **arguments: Any) -> tuple[Tensor, Tensor]:
        masks, _ = super().forward(**arguments)
        now = self.recording.take(len(masks))
        return self.recording.logits[now], self.recording.iou[now]


class _RecordedHead(nn.Module):
    def __init__(self, head: nn.Module, recording: Recording) -> None:
        super().__init__()
        self.head, self.recording = head, recording
        self.now = slice(0)

    def forward(self, tokens: Tensor) -> Tensor:
        single = self.head(tokens)[:, :1]
        self.now = self.recording.take(len(tokens))
        return torch.cat([single, self.recording.iou[self.now]], dim=1)


def with_recording(sam: Sam, recording: Recording) -> Sam:
    """A `Sam` that shares all weights with `sam`, for the reference generator."""
    other = copy.copy(sam)
    other._modules = dict(sam._modules)
    decoder = copy.copy(sam.mask_decoder)
    decoder.__class__ = RecordedDecoder
    decoder.recording = recording
    other._modules["mask_decoder"] = decoder
    return other


@contextmanager
def recorded(generator: FastMaskGenerator, recording: Recording) -> Iterator[FastMaskGenerator]:
    """Our generator, with the decoder's predicted IoU and its drawn masks replaced."""
    folded = generator.pipelined.segmenter._decoder  # type: ignore[attr-defined]
    head, draw = folded.decoder.iou_prediction_head, folded._draw
    recorded_head = _RecordedHead(head, recording)

    def drawn(tokens: Tensor, keys: Tensor, wanted: Tensor, masks: range, rows: int, columns: int) -> Tensor:
        draw(tokens, keys, wanted, masks, rows, columns)
        # Of the prompts of this sub-batch those that were drawn, in order.
        iou = recording.iou[recorded_head.now]
        kept = iou > generator.pipelined.settings.pred_iou_thresh
        return recording.logits[recorded_head.now][kept][:, : 4 * rows, : 4 * columns].contiguous()

    folded.decoder.iou_prediction_head, folded._draw = recorded_head, drawn
    try:
        yield generator
    finally:
        folded.decoder.iou_prediction_head, folded._draw = head, draw
