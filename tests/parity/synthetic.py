"""A `Sam` whose masks are drawn by a formula: what random weights never give, realistic masks, and every awkward case.

The same module serves segment-anything's generator and ours, so any difference is in what they do with the logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from torch import Tensor, nn

from trackmill.models.sam import FastMaskGenerator

KINDS = ("blobs", "specks", "steps", "flat", "empty", "full", "noise", "cutoffs", "frames")


class Canvas(nn.Module):
    """An image encoder that looks at nothing."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.img_size = image_size

    def forward(self, batch: Tensor) -> Tensor:
        return batch.new_zeros(len(batch), 4, 2, 2)


class Prompts(nn.Module):
    """Passes points and boxes through as they are, in the pixels of the model's input."""

    def forward(self, points: Any, boxes: Any, masks: Any) -> tuple[Tensor, Tensor]:
        return (boxes.reshape(-1, 2, 2) if points is None else points[0]).double(), torch.zeros(1)

    def get_dense_pe(self) -> Tensor:
        return torch.zeros(1)


class Painter(nn.Module):
    """A mask decoder that paints masks around each prompt, always the same for the same place and seed."""

    def __init__(self, seed: int, side: int, image_size: int, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.seed, self.side, self.image_size, self.kinds = seed, side, image_size, kinds

    def forward(self, sparse_prompt_embeddings: Tensor, multimask_output: bool, **unused: Any) -> tuple[Tensor, Tensor]:
        painted = [self._paint(each.flatten().tolist(), multimask_output) for each in sparse_prompt_embeddings]
        logits = torch.from_numpy(np.stack([masks for masks, _ in painted]))
        return logits, torch.from_numpy(np.stack([iou for _, iou in painted]))

    def _paint(self, place: list[float], several: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x, y = place[0], place[1]
        generator = np.random.default_rng([self.seed, round(x * 64), round(y * 64)])
        # The quality of neighbours ties now and then, so that the order of ties is seen.
        iou = np.round(generator.uniform(0.8, 1.02, 3), 2).astype(np.float32)
        scale = self.side / self.image_size
        masks = [self._mask(generator, x * scale, y * scale, size) for size in (0.04, 0.12, 0.3)]
        return (np.stack(masks), iou) if several else (masks[1][None], iou[1:2])

    def _mask(self, generator: np.random.Generator, x: float, y: float, size: float) -> NDArray[np.float32]:
        side, kind = self.side, str(generator.choice(self.kinds))
        rows, columns = np.mgrid[0:side, 0:side] + 0.5
        radius = side * size * generator.uniform(0.5, 1.5)
        stretch = generator.uniform(0.6, 1.7)
        distance = np.hypot((columns - x) * stretch, (rows - y) / stretch)
        blob = (radius - distance) * generator.uniform(0.5, 6) * 60 / side
        wobble = gaussian_filter(generator.normal(size=(side, side)), side / 80)
        blob = blob + wobble * generator.uniform(0, 25)
        if generator.random() < 0.4:  # a hole
            blob = np.minimum(blob, (distance - radius * generator.uniform(0.1, 0.6)) * 4)
        if kind == "specks":
            blob = np.maximum(blob, (generator.random((side, side)) > 0.995) * 12.0 - 9)
        elif kind == "steps":
            blob = np.round(blob)  # whole plateaus lie exactly on the cutoffs
        elif kind == "flat":
            blob = np.full_like(blob, generator.choice([-1.0, 0.0, 1.0, 0.5]))
        elif kind in ("empty", "full"):
            blob = np.full_like(blob, 6.0 if kind == "full" else -6.0)
        elif kind == "noise":
            blob = generator.normal(0, 3, (side, side))
        elif kind == "cutoffs":
            blob = generator.choice([-1.0, 0.0, 1.0, -2.0, 2.0], (side, side))
        elif kind == "frames":
            blob = np.where((distance > radius) & (generator.random() < 0.9), 5.0, -5.0)  # all but a disc
        return np.clip(blob, -30, 20).astype(np.float32)


def painting_sam(
    seed: int, image_size: int = 256, side: int = 64, kinds: tuple[str, ...] = ("blobs", "blobs", "specks", "steps")
) -> Sam:
    """A `Sam` that paints; its low-resolution masks have `side` pixels a side."""
    return Sam(Canvas(image_size), Prompts(), Painter(seed, side, image_size, kinds)).eval()


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """A picture of noise."""
    return np.random.default_rng(height * 10_007 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def reference_records(sam: Sam, image: NDArray[np.uint8], **settings: Any) -> list[dict[str, Any]]:
    """What segment-anything finds; with crops none of which holds a mask, where it fails, nothing."""
    settings = {"min_mask_region_area": 100, "output_mode": "coco_rle", **settings}
    generator = SamAutomaticMaskGenerator(sam, **settings)
    process = generator._process_crop

    def process_crop(*arguments: Any) -> Any:
        data = process(*arguments)
        data["crop_boxes"] = data["crop_boxes"].reshape(-1, 4)
        return data

    generator._process_crop = process_crop
    return list(generator.generate(image))


def fast_records(sam: Sam, image: NDArray[np.uint8], **settings: Any) -> list[dict[str, Any]]:
    """What ours finds."""
    return FastMaskGenerator(sam, **settings).generate(image)


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Same records, in the same order; masks to the byte, numbers to the last bit."""
    assert len(ours) == len(theirs)
    for number, (mine, other) in enumerate(zip(ours, theirs)):
        assert mine.keys() == other.keys()
        for key in other:
            same = np.array_equal(mine[key], other[key], equal_nan=True) if key != "segmentation" else True
            assert same, f"record {number}: {key} is {mine[key]}, the reference has {other[key]}"
        if isinstance(other["segmentation"], dict):
            assert mine["segmentation"] == other["segmentation"], f"record {number}: another mask"
        else:
            assert np.array_equal(mine["segmentation"], other["segmentation"]), f"record {number}: another mask"
