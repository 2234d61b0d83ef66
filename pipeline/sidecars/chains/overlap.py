"""How much boxes of one frame overlap boxes of another: by the boxes, or by the masks that are stored with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.sidecars.chains.link import Overlap
from trackmill.schemas.boxes import Boxes, iou_matrix
from trackmill.schemas.masks import CroppedMask, Mask, decode_mask


def box_overlap(boxes: Sequence[Boxes]) -> Overlap:
    """IoU of boxes.

    Args:
        boxes: (N, 4) of each frame.
    """
    return lambda before, here: iou_matrix(boxes[before], boxes[here])


def mask_overlap(masks: Sequence[Sequence[CroppedMask]], height: int, width: int) -> Overlap:
    """IoU of masks, in pixels of the stored frames; only of those whose boxes meet is anything decoded.

    Args:
        masks: N of each frame.
        height, width: of the frames.

    Raises:
        ValueError: (when asked) a mask leaves its frame, or is broken.
    """
    decoded: dict[tuple[int, int], tuple[Mask, int]] = {}

    def pixels(frame: int, number: int) -> tuple[Mask, int]:
        if (frame, number) not in decoded:
            mask = decode_mask(masks[frame][number], height, width)
            decoded[frame, number] = mask, int(mask.sum())
        return decoded[frame, number]

    def overlap(before: int, here: int) -> NDArray[np.float32]:
        for old in [place for place in decoded if place[0] < before]:
            del decoded[old]
        a, b = (np.array([_box(mask) for mask in masks[frame]], np.float32).reshape(-1, 4) for frame in (before, here))
        iou = np.zeros((len(a), len(b)), np.float32)
        for row, column in zip(*np.nonzero(iou_matrix(a, b))):
            one, two = masks[before][row], masks[here][column]
            x0, y0 = max(one.x, two.x), max(one.y, two.y)
            x1, y1 = min(one.x + one.width, two.x + two.width), min(one.y + one.height, two.y + two.height)
            (left, area), (right, other) = pixels(before, row), pixels(here, column)
            shared = int((_window(left, one, x0, y0, x1, y1) & _window(right, two, x0, y0, x1, y1)).sum())
            if shared:
                iou[row, column] = shared / (area + other - shared)
        return iou

    return overlap


def _box(mask: CroppedMask) -> tuple[int, int, int, int]:
    return mask.x, mask.y, mask.x + mask.width, mask.y + mask.height


def _window(pixels: Mask, mask: CroppedMask, x0: int, y0: int, x1: int, y1: int) -> Mask:
    return pixels[y0 - mask.y : y1 - mask.y, x0 - mask.x : x1 - mask.x]
