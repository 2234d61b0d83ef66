"""Pictures of people for CLIP: ground-truth boxes cut out of the frames of a clip (section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from trackmill.models.clip.image_tower import MEAN, STD

SIZE = (256, 128)
"""Height and width of a crop in pixels. The paper's "128x256" is width by height, of upright people."""

SMALLEST = 8
"""[D]: a decision made here. Boxes of which less is inside the frame, in pixels of either side, are left out."""


class Crops(NamedTuple):
    """Crops of the boxes of a clip.

    Args:
        images: (N, 3, 256, 128) float32 R, G, B, normalised for CLIP.
        kept: (sum of G,) bool, of all boxes, frame after frame: which of them the N crops belong to, in order.
    """

    images: Tensor
    kept: Tensor


def cut_crops(
    images: Tensor, boxes: Sequence[Tensor], size: tuple[int, int] = SIZE, smallest: float = SMALLEST
) -> Crops:
    """Cut out what is inside the frame of each box, and resize it bilinearly with antialiasing.

    A crop is made of whole pixels, all that the box touches. Small and large boxes alike are resized by torch's own
    antialiased filter, one call a box: sampling a grid or `roi_align` would alias tall people, who shrink.

    Args:
        images: (T, 3, H, W) float R, G, B in 0..1, neither padded nor normalised.
        boxes: for each frame (G, 4) xyxy in pixels, which may leave the frame.
        size: height and width of a crop.
        smallest: pixels that must be inside the frame on either side.

    Raises:
        ValueError: the boxes are not those of T frames.
    """
    if len(boxes) != len(images):
        raise ValueError(f"boxes of {len(boxes)} frames for {len(images)} frames")
    height, width = images.shape[-2:]
    frames = [frame for frame, each in enumerate(boxes) for _ in range(len(each))]
    nothing = images.new_zeros(0, 4)
    every = torch.cat([nothing, *(each.detach().float() for each in boxes)]).float().cpu()  # one wait for the device
    limits = every.new_tensor([width, height, width, height])
    inside = every.clamp(min=torch.zeros(4), max=limits)
    sides = inside[:, 2:] - inside[:, :2]
    kept = every.isfinite().all(dim=1) & (sides >= smallest).all(dim=1)
    crops = images.new_empty((int(kept.sum()), 3, *size), dtype=torch.float32)
    for row, index in enumerate(kept.nonzero()[:, 0].tolist()):
        x0, y0, x1, y1 = inside[index].tolist()
        cut = images[frames[index], :, math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
        resized = F.interpolate(cut[None].float(), size, mode="bilinear", align_corners=False, antialias=True)
        crops[row] = resized[0]
    mean, std = (crops.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return Crops(crops.sub_(mean).div_(std), kept.to(images.device))
