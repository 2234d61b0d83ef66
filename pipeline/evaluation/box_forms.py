"""Tells results whose boxes are written in another form than `x, y, width, height` in pixels: they score near zero.

A hint, not a conversion: the file says nothing about its form, and a bad tracker may score near zero too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.overlaps import Overlaps, find_overlaps
from trackmill.pipeline.evaluation.tracks import Tracks

_FRACTIONS = "fractions of the picture, 0 to 1"
_NEAR_ZERO, _MANY = 0.1, 0.3
"""Shares of objects with a prediction of IoU 0.5: below the first something is wrong, above the second it is known."""
_LARGEST_FRACTION, _SMALLEST_PICTURE = 2.0, 20.0
"""Coordinates within the first are fractions if those of the ground truth are above the second."""


def likely_form(gt: Tracks, predictions: Tracks, overlaps: Overlaps) -> str:
    """What the predicted boxes of a video look like if they are not what they should be; empty where they may be.

    Args:
        gt, predictions: the compared rows.
        overlaps: of their boxes, as they were read.
    """
    matched = _matched(overlaps)
    if matched > _NEAR_ZERO * min(len(gt), len(predictions)):
        return ""
    compared = min(len(gt), int(np.isin(predictions.frames, gt.frames).sum()))
    if compared == 0 or matched > _NEAR_ZERO * compared:
        return ""
    if np.abs(predictions.boxes).max() <= _LARGEST_FRACTION and np.abs(gt.boxes).max() > _SMALLEST_PICTURE:
        return _FRACTIONS
    for form, boxes in _other_forms(predictions.boxes).items():
        if (boxes[:, 2:] < boxes[:, :2]).any():
            continue
        again = find_overlaps(gt, replace(predictions, boxes=boxes), overlaps.num_frames)
        if _matched(again) >= _MANY * compared:
            return form
    return ""


def notes_on_forms(forms: Mapping[str, str]) -> list[str]:
    """A note for each form, from the form of each video."""
    notes = []
    for form in dict.fromkeys(filter(None, forms.values())):
        names = [name for name, of_video in forms.items() if of_video == form]
        text = f"the boxes of the results look like {form}; they should be x, y, width, height in pixels"
        notes.append(f"{listed(names)}: scored near zero, and {text}")
    return notes


def _matched(overlaps: Overlaps) -> int:
    """Ground-truth objects with a prediction of IoU 0.5 or more."""
    found = np.zeros(overlaps.num_gt, bool)
    found[overlaps.pair_gt[overlaps.pair_iou >= 0.5]] = True
    return int(found.sum())


def _other_forms(boxes: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """`xyxy` boxes of rows that were read as x, y, width, height, had their four numbers meant something else."""
    corner, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    return {
        "x0, y0, x1, y1": np.hstack([corner, size]),
        "x and y of the centre, width, height": np.hstack([corner - size / 2, corner + size / 2]),
    }


def listed(names: Sequence[str]) -> str:
    """The first eight names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")
