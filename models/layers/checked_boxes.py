"""Checks boxes that a caller gives to a network, before it is run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def checked_boxes(boxes: Sequence[Tensor], num_images: int) -> list[Tensor]:
    """Float32 boxes (N_i, 4) xyxy of each image; an empty list or (0,) stands for none.

    Raises:
        ValueError: the numbers of images and tensors differ; boxes have another shape, are not finite, or are inverted.
            The text names the wrong box.
    """
    if len(boxes) != num_images:
        raise ValueError(f"boxes must be one tensor (N, 4) an image: {len(boxes)} tensors for {num_images} images")
    checked = []
    for index, given in enumerate(boxes):
        each = torch.as_tensor(given, dtype=torch.float32)
        if each.ndim == 1 and not len(each):
            each = each.view(0, 4)
        if each.ndim != 2 or each.shape[1] != 4:
            raise ValueError(f"boxes[{index}] must have the shape (N, 4), xyxy in pixels, not {tuple(each.shape)}")
        if not bool(each.isfinite().all()):
            row = int(torch.nonzero(~each.isfinite().all(dim=1))[0])
            raise ValueError(f"boxes[{index}][{row}] is {each[row].tolist()}: leave out boxes that are not finite")
        inverted = (each[:, 2:] < each[:, :2]).any(dim=1)
        if bool(inverted.any()):
            row = int(torch.nonzero(inverted)[0])
            raise ValueError(
                f"boxes[{index}][{row}] is {each[row].tolist()}, with x1 < x0 or y1 < y0: boxes are x0, y0, x1, y1"
            )
        checked.append(each)
    return checked
