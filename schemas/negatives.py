"""Which boxes of a frame are no pseudo-negatives: the one rule, for mining and for sidecars.

Source: ScaleTrack, section 3.3 and appendix (table 13: 53.5 to 57.3 AssocA with pseudo-negatives): proposals of a
detector, without those of IoU >= 0.5 to a ground-truth box of the same frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes, box_areas, iou_matrix


def overlapping_objects(boxes: Boxes, objects: Boxes, max_iou: float) -> NDArray[np.bool_]:
    """(N,) whether each box has an IoU of `max_iou` or more with an annotated object.

    Args:
        boxes: (N, 4) float32 xyxy.
        objects: (G, 4), in the same pixels.
        max_iou: 0.5 in the paper.
    """
    near: NDArray[np.bool_] = np.any(iou_matrix(boxes, objects) >= max_iou, axis=1)
    return near


def inside_ignored(boxes: Boxes, regions: Boxes, max_share: float) -> NDArray[np.bool_]:
    """(N,) whether `max_share` or more of each box lies inside one of the regions that annotators left out.

    The share and not the IoU, because such a region is often a whole crowd, and a person in the middle of it has a
    small IoU with it.

    Args:
        boxes: (N, 4) float32 xyxy.
        regions: (K, 4), in the same pixels.
        max_share: of a box's area, 0..1.
    """
    low = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    shares = sides[..., 0] * sides[..., 1] / np.maximum(box_areas(boxes)[:, None], 1e-9)  # (N, K)
    inside: NDArray[np.bool_] = np.any(shares >= max_share, axis=1)
    return inside
