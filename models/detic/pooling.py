"""RoIAlign from the level that fits a box (He et al., Mask R-CNN, sec. 3; FPN, eq. 1), for all images of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from trackmill.models.detic.settings import OFFICIAL, STRIDES, Flavour

NUM_LEVELS = 3
"""p3, p4, p5."""


def levels_of(boxes: Tensor, flavour: Flavour = OFFICIAL) -> Tensor:
    """(N,) int64, 0 for p3 to 2 for p5: `floor(4 + log2(sqrt(area) / 224 + 1e-8))`, within these (FPN, eq. 1)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    scale = torch.sqrt(sides[:, 0] * sides[:, 1]) / flavour.region_side
    level = torch.floor(flavour.region_level + torch.log2(scale + flavour.epsilon)) - flavour.first_level
    return level.nan_to_num(0).clamp(0, NUM_LEVELS - 1).long()


def pool(levels: Sequence[Tensor], boxes: Sequence[Tensor], cells: int, flavour: Flavour = OFFICIAL) -> Tensor:
    """Regions of boxes, each from its level; half-pixel aligned, with one sample a pixel of the map (adaptive).

    Args:
        levels: p3, p4, p5 and maybe more, each (B, C, H_l, W_l).
        boxes: B tensors (N_i, 4) xyxy in pixels of the padded images; they may reach beyond, be empty, or be not
            finite, which counts as empty.
        cells: of a side of a region.
        flavour: which level fits a box.

    Returns:
        (sum N_i, C, cells, cells) in the levels' type, one image after the other.
    """
    counts = torch.tensor([len(each) for each in boxes])
    images = torch.repeat_interleave(torch.arange(len(counts)), counts)
    # Coordinates and sums stay float32: half precision has steps of half a pixel above 512.
    precise = torch.promote_types(levels[0].dtype, torch.float32)
    flat = torch.cat(list(boxes)).to(precise)  # (N, 4)
    # A coordinate that is none would be used as a place in memory.
    flat = torch.where(flat.isfinite().all(dim=1, keepdim=True), flat, torch.zeros_like(flat))
    regions = torch.cat([images[:, None].to(flat), flat], dim=1)  # (N, 5): image, x0, y0, x1, y1
    chosen = levels_of(flat, flavour)
    pooled = flat.new_zeros(len(flat), levels[0].shape[1], cells, cells)
    for index in range(NUM_LEVELS):
        members = torch.nonzero(chosen == index).flatten()
        if len(members):
            level = levels[index].to(precise)
            found = roi_align(level, regions[members], cells, 1.0 / STRIDES[index], sampling_ratio=0, aligned=True)
            pooled.index_copy_(0, members, found)
    return pooled.to(levels[0].dtype)
