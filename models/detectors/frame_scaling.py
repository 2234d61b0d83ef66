"""Frames and boxes at the size that a model looks at: scaled up or down by mmcv's keep-ratio rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from trackmill.schemas.errors import InputError

Size = tuple[int, int]
"""Height and width in pixels."""

Maps = TypeVar("Maps")
"""What a network makes of images of one size."""


@dataclass(frozen=True, kw_only=True)
class FrameScaling:
    """The largest size at which frames are looked at.

    Frames are scaled, up as well as down, until the longer side reaches `long_side` or the shorter one `short_side`,
    whichever comes first (mmcv 2.1, `image/geometric.py`, `rescale_size`).

    Args:
        long_side: pixels; larger shows small objects and costs time in proportion to the area. Official: 1024, and
            1333 for Detic.
        short_side: pixels; official: 1024, which sets no limit of its own, and 800 for Detic.
    """

    long_side: int = 1024
    short_side: int = 1024

    def __post_init__(self) -> None:
        for name in ("long_side", "short_side"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: should be 1 or more, found {getattr(self, name)}")

    def size(self, height: int, width: int) -> Size:
        """Height and width after scaling: `int(side * factor + 0.5)`, at least one pixel each."""
        longest, shortest = max(self.long_side, self.short_side), min(self.long_side, self.short_side)
        factor = min(longest / max(height, width), shortest / min(height, width))
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))

    def scale(self, images: Sequence[NDArray[np.uint8]], device: torch.device | str) -> torch.Tensor:
        """Scale images of one size.

        Bilinear with half-pixel centres and no antialiasing, then rounded to whole levels, as OpenCV's `INTER_LINEAR`
        that mmcv uses; OpenCV's fixed-point sums may round the other way, by one level.

        Args:
            images: B arrays (H, W, 3) uint8 RGB.
            device: where the result lies.

        Returns:
            (B, 3, h, w) float32, whole numbers 0..255.
        """
        batch = torch.stack(
            [torch.from_numpy(np.require(image, requirements=("C", "W"))) for image in images]
        )  # (B, H, W, 3)
        batch = batch.to(device).permute(0, 3, 1, 2).float()  # (B, 3, H, W)
        size = self.size(*batch.shape[2:])
        if size == tuple(batch.shape[2:]):
            return batch.contiguous()
        scaled = functional.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=False)
        return scaled.round_().clamp_(0, 255)

    def factors(self, height: int, width: int) -> NDArray[np.float32]:
        """(4,) by which a box (x0, y0, x1, y1) is multiplied: the exact factors of both axes, after rounding sizes."""
        scaled_height, scaled_width = self.size(height, width)
        x, y = scaled_width / width, scaled_height / height
        return np.array([x, y, x, y], np.float32)


def runs_of_one_size(images: Sequence[NDArray[np.uint8]]) -> list[slice]:
    """Slices of neighbouring images that are equally large, so that each run can be one batch."""
    starts = [i for i in range(len(images)) if i == 0 or images[i].shape != images[i - 1].shape]
    return [slice(begin, end) for begin, end in zip(starts, [*starts[1:], len(images)])]


class LatestMaps(Generic[Maps]):
    """Remembers what was made of the latest batch of frames, so that a detector and an embedder share it."""

    def __init__(self) -> None:
        self._images: list[NDArray[np.uint8]] = []
        self._runs: list[Maps] = []

    def of(
        self, images: Sequence[NDArray[np.uint8]], compute: Callable[[Sequence[NDArray[np.uint8]], slice], Maps]
    ) -> list[Maps]:
        """`compute(images, run)` for each run of one size; the very same arrays once more cost nothing."""
        same = len(images) == len(self._images) and all(a is b for a, b in zip(images, self._images, strict=True))
        if not same:
            self._runs = []  # the old maps must be gone before the new ones need the memory
            self._runs = [compute(images, run) for run in runs_of_one_size(images)]
            self._images = list(images)
        return self._runs
