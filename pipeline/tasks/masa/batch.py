"""A batch of MASA: pairs of views of the same pictures, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import torch
from torch import Tensor

from trackmill.models.masa.losses import Targets
from trackmill.pipeline.loader.views import View
from trackmill.pipeline.tasks.masa.examples import Example


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewBatch:
    """One view of each of B pictures.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        boxes: B tensors (G_i, 4) float32 xyxy, pixels of the view; they may leave it.
        ids: B tensors (G_i,) int64; the same object has the same id in both views of its picture.
    """

    images: Tensor
    boxes: list[Tensor]
    ids: list[Tensor]

    def targets(self, origins: Sequence[tuple[str, ...]]) -> list[Targets]:
        """The objects as the losses take them; `origins`: see `PairBatch`."""
        return [
            Targets(boxes=boxes, ids=ids, groups=files)
            for boxes, ids, files in zip(self.boxes, self.ids, origins, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBatch:
    """Two views of each of B pictures.

    Args:
        key, reference: the two views.
        origins: for each picture, the files or videos whose pixels are in its views: its own, and the one blended in.
    """

    key: ViewBatch
    reference: ViewBatch
    origins: list[tuple[str, ...]]


def join_examples(examples: Sequence[Example]) -> PairBatch:
    """B examples, in order, as one batch."""
    return PairBatch(
        key=_join([each.key for each in examples]),
        reference=_join([each.reference for each in examples]),
        origins=[each.origins for each in examples],
    )


def _join(views: Sequence[View]) -> ViewBatch:
    height, width = views[0].image.shape[:2]
    images = torch.empty((len(views), 3, height, width), dtype=torch.uint8)
    for planes, view in zip(images.numpy(), views, strict=True):
        cv2.split(view.image, list(planes))  # into them: each pixel is moved once
    return ViewBatch(
        images=images,
        boxes=[torch.from_numpy(view.boxes) for view in views],
        ids=[torch.from_numpy(view.ids) for view in views],
    )
