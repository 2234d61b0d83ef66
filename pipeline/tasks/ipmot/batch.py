"""A batch of IP-MOT: clips one after the other, since their frames differ in size and number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trackmill.pipeline.loader.clips.query_example import QueryExample


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryClip:
    """T frames of one size.

    Args:
        images: (T, 3, H, W) uint8 RGB.
        boxes: T tensors (G_t, 4) float32 `xyxy` in pixels, which may leave the frame; G_t may be 0.
        ids: T tensors (G_t,) int64 from 0, the same in all frames of the clip.
        keys: T tensors (G_t,) int64, entries of the TrackBook; -1: none.
        static: whether the frames are shifted copies of one picture.
        sample: key of the sample, for messages.
    """

    images: Tensor
    boxes: tuple[Tensor, ...]
    ids: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]
    static: bool
    sample: str


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryBatch:
    """The clips of a rank's part of a batch, in order. Nothing is padded: each goes through the network by itself."""

    clips: list[QueryClip]

    @property
    def num_boxes(self) -> int:
        """Boxes of all frames of all clips."""
        return sum(len(each) for clip in self.clips for each in clip.boxes)


def join_queries(examples: Sequence[QueryExample]) -> QueryBatch:
    """The examples, in order, as one batch."""
    return QueryBatch(
        clips=[
            QueryClip(
                images=torch.from_numpy(example.images).permute(0, 3, 1, 2).contiguous(),
                boxes=tuple(map(torch.from_numpy, example.boxes)),
                ids=tuple(map(torch.from_numpy, example.ids)),
                keys=tuple(map(torch.from_numpy, example.keys)),
                static=example.static,
                sample=example.key,
            )
            for example in examples
        ]
    )
