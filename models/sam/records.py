"""Turns masks into segment-anything's records: dictionaries with the same keys and values, in all three formats."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from trackmill.models.sam.candidates import Candidates
from trackmill.models.sam.regions import crop_intervals, intervals_area, intervals_box, intervals_counts
from trackmill.models.sam.scan import Intervals
from trackmill.schemas.masks import CroppedMask

OutputMode = Literal["coco_rle", "uncompressed_rle", "binary_mask"]


def make_records(candidates: Candidates, size: tuple[int, int], output_mode: OutputMode) -> list[dict[str, Any]]:
    """One dictionary for each mask, as `SamAutomaticMaskGenerator.generate` returns them.

    Keys: `segmentation`, `area`, `bbox` (x, y, last column - first column, last row - first row), `predicted_iou`,
    `point_coords` (for box prompts: `box_coords`, `xyxy`), `stability_score`, `crop_box` (x, y, w, h).
    """
    records = []
    for i, intervals in enumerate(candidates.intervals):
        x0, y0, x1, y1 = candidates.boxes[i].tolist()
        left, top, right, bottom = candidates.crops[i].tolist()
        prompt = candidates.prompts[i].tolist()
        records.append(
            {
                "segmentation": segmentation(intervals, size, output_mode),
                "area": intervals_area(intervals),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "predicted_iou": candidates.iou[i].item(),
                **({"point_coords": [prompt]} if len(prompt) == 2 else {"box_coords": prompt}),
                "stability_score": candidates.stability[i].item(),
                "crop_box": [left, top, right - left, bottom - top],
            }
        )
    return records


def segmentation(intervals: Intervals, size: tuple[int, int], output_mode: OutputMode) -> Any:
    """One mask of a picture of `size` (H, W), in the format of `output_mode`."""
    if output_mode == "binary_mask":
        return binary_mask(intervals, size)
    if output_mode == "uncompressed_rle":
        return {"size": list(size), "counts": intervals_counts(intervals, size[0] * size[1]).tolist()}
    return {"size": list(size), "counts": _compressed(intervals, size)}


def cropped_mask(intervals: Intervals, size: tuple[int, int]) -> CroppedMask | None:
    """The mask cropped to its own box, as shards store it; None for an empty mask."""
    if not len(intervals):
        return None
    x0, y0, x1, y1 = box = intervals_box(intervals, size[0])
    height, width = y1 - y0 + 1, x1 - x0 + 1
    counts = _compressed(crop_intervals(intervals, size[0], box), (height, width))
    return CroppedMask(x=x0, y=y0, height=height, width=width, counts=counts)


def _compressed(intervals: Intervals, size: tuple[int, int]) -> str:
    counts = intervals_counts(intervals, size[0] * size[1]).tolist()
    compressed: str = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"].decode("ascii")
    return compressed


def binary_mask(intervals: Intervals, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool mask of a picture of `size` (H, W)."""
    counts = intervals_counts(intervals, size[0] * size[1])
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")
