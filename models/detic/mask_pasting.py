"""Masks of boxes put into the picture (detectron2's `paste_masks_in_image`, its exact form and not the old one)."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from trackmill.schemas.masks import CroppedMask, crop_mask

THRESHOLD = 0.5
"""A pixel with at least this probability belongs to the object."""


def paste_masks(probabilities: Tensor, boxes: Tensor, height: int, width: int) -> tuple[CroppedMask | None, ...]:
    """Each box's probabilities stretched over the box, bilinearly, and cut at one half.

    Pixels are asked at their centres; beyond the outermost of the 28 x 28 centres, probabilities fall off to zero.

    Args:
        probabilities: (N, 28, 28) float32 on the CPU.
        boxes: (N, 4) float32 xyxy in pixels of the picture, within it and not empty.
        height, width: of the picture in pixels.

    Returns:
        N masks; None where no pixel is left.
    """
    return tuple(_paste(each, box, height, width) for each, box in zip(probabilities, boxes, strict=True))


def _paste(probability: Tensor, box: Tensor, height: int, width: int) -> CroppedMask | None:
    x0, y0, x1, y1 = box.tolist()
    # A pixel more on each side: half a cell of the mask reaches beyond the box.
    left, top = max(math.floor(x0) - 1, 0), max(math.floor(y0) - 1, 0)
    right, bottom = min(math.ceil(x1) + 1, width), min(math.ceil(y1) + 1, height)
    x = (torch.arange(left, right, dtype=torch.float32) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    places = torch.stack([x.expand(len(y), len(x)), y[:, None].expand(len(y), len(x))], dim=-1)  # (h, w, 2)
    pixels = F.grid_sample(probability[None, None], places[None], align_corners=False)[0, 0] >= THRESHOLD
    cropped = crop_mask(pixels.numpy())
    return None if cropped is None else dataclasses.replace(cropped, x=cropped.x + left, y=cropped.y + top)
