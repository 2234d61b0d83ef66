"""A data set's run-length mask to ours, decoding only the columns that the object touches.

An SA-1B picture has a hundred masks of three million pixels each; their objects cover two percent of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import shown, whole_number
from trackmill.schemas.masks import CroppedMask, Runs, check_runs, format_counts, mask_runs, parse_counts, runs_box


def crop_rle(segmentation: Any, height: int, width: int, where: str) -> CroppedMask | None:
    """Cropped mask of a COCO RLE; None where it has no pixel.

    Args:
        segmentation: `{"size": [h, w], "counts": ...}`, counts compressed (text) or not (a list of whole numbers).
        height, width: size of the image that it must have been made for.
        where: file and annotation, for the error.

    Raises:
        BadItem: a polygon, another size than the image's, or counts that are broken or do not fill the image.
    """
    if isinstance(segmentation, list):
        raise BadItem(f"{where}: the segmentation is a polygon; only run-length masks are read, convert it to COCO RLE")
    if not isinstance(segmentation, dict) or "size" not in segmentation or "counts" not in segmentation:
        raise BadItem(f"{where}: the segmentation should be an object with 'size' and 'counts'")
    size = segmentation["size"]
    if not isinstance(size, list) or len(size) != 2:
        raise BadItem(f"{where}: the segmentation's 'size' should be [height, width], found {shown(size)}")
    if [whole_number(side, f"{where}: size of the segmentation") for side in size] != [height, width]:
        raise BadItem(
            f"{where}: the mask was made for {size[0]} x {size[1]} pixels (height x width), the image has "
            f"{height} x {width}"
        )
    try:
        runs = _runs(segmentation["counts"], height * width, where)
        check_runs(runs, height, width)
    except BadItem:
        raise
    except ValueError as error:
        raise BadItem(f"{where}: {error}") from None
    return crop_runs(runs, height)


def crop_runs(runs: Runs, height: int) -> CroppedMask | None:
    """Cropped mask of checked run lengths of a frame of `height`; None where it has no pixel."""
    box = runs_box(runs, height)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    # Runs go down the columns, so the object's columns are one stretch of them.
    edges = np.clip(np.cumsum(runs), x0 * height, x1 * height)
    inside = np.diff(edges, prepend=x0 * height)
    values = (np.arange(runs.size) % 2).astype(bool)
    columns = np.repeat(values, inside).reshape((height, x1 - x0), order="F")
    rows = np.flatnonzero(columns[y0:y1].any(axis=1))
    # Where a run goes round a column's end, `runs_box` answers with the full height; this makes the crop tight.
    y0, y1 = y0 + int(rows[0]), y0 + int(rows[-1]) + 1
    counts = format_counts(mask_runs(columns[y0:y1]))
    return CroppedMask(x=x0, y=y0, height=y1 - y0, width=x1 - x0, counts=counts)


def _runs(counts: Any, pixels: int, where: str) -> Runs:
    if isinstance(counts, str):
        return parse_counts(counts, pixels)
    if isinstance(counts, list) and len(counts) > pixels + 2:
        raise BadItem(f"{where}: the mask has {len(counts)} runs, more than {pixels} pixels can have")
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        if any(not 0 <= count <= pixels for count in counts):
            raise BadItem(f"{where}: the mask has a run that is negative or longer than the {pixels} pixels")
        return np.array(counts, np.int64)
    raise BadItem(f"{where}: the segmentation's 'counts' should be text or a list of whole numbers")
