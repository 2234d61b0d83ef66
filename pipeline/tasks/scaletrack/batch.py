"""A batch of ScaleTrack: clips as tensors, all boxes of all frames in one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trackmill.pipeline.loader.clips import NEGATIVE, ClipExample


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipBatch:
    """B clips of T frames. Shorter ones end in black frames without boxes: no frame before them notices.

    Args:
        images: (B, T, 3, S, S) uint8 RGB.
        sizes: (B, 2) int64, height and width of the picture in each clip's square.
        boxes: (N, 4) float32 xyxy, pixels of the square: objects and pseudo-negatives.
        frame_of_box: (N,) int64, 0..B*T-1, rising.
        identity: (N,) int64, 0 or more within a clip; `NEGATIVE` for pseudo-negatives.
        keys: of the samples.
    """

    images: Tensor
    sizes: Tensor
    boxes: Tensor
    frame_of_box: Tensor
    identity: Tensor
    keys: list[str]


def join_clips(examples: Sequence[ClipExample], negatives: bool = True) -> ClipBatch:
    """B examples, in order, as one batch; without pseudo-negatives, if they are not wanted."""
    longest = max(example.num_frames for example in examples)
    side = examples[0].images.shape[1]
    images = torch.zeros((len(examples), longest, 3, side, side), dtype=torch.uint8)
    boxes, frames, identities = [], [], []
    for place, example in enumerate(examples):
        images[place, : example.num_frames] = torch.from_numpy(example.images).permute(0, 3, 1, 2)
        for frame, (own, ids) in enumerate(zip(example.boxes, example.ids, strict=True)):
            kept = slice(None) if negatives else ids != NEGATIVE
            boxes.append(own[kept])
            identities.append(ids[kept])
            frames.append(np.full(len(ids[kept]), place * longest + frame, np.int64))
    return ClipBatch(
        images=images,
        sizes=torch.tensor([example.size for example in examples], dtype=torch.int64),
        boxes=torch.from_numpy(np.concatenate(boxes).astype(np.float32)),
        frame_of_box=torch.from_numpy(np.concatenate(frames)),
        identity=torch.from_numpy(np.concatenate(identities).astype(np.int64)),
        keys=[example.key for example in examples],
    )
