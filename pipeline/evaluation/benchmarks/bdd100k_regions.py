"""Ignored regions of BDD100K (crowds, look-alikes): which predictions are inside one, and which of those to drop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from trackmill.pipeline.evaluation.assignment import best_pairs
from trackmill.pipeline.evaluation.box_overlaps import EPS, box_pairs
from trackmill.pipeline.evaluation.metrics.track_overlaps import mask_areas
from trackmill.pipeline.evaluation.overlaps import Iou, Overlaps
from trackmill.pipeline.evaluation.tracks import Tracks

INSIDE = 0.5
"""A prediction is inside a region that covers more than this share of it."""

_MATCHES_FIRST = 10_000.0
"""Bonus of a match over IoU where masks are compared (TrackEval's KITTI MOTS, which BDD100K builds on)."""


def boxes_inside(
    predictions: Tracks, areas: NDArray[np.float64], regions: Tracks, num_frames: int, margin: float
) -> NDArray[np.bool_]:
    """(P,) whether some region of its frame covers more than half of a predicted box.

    Args:
        predictions, regions: boxes as the metric measures them.
        areas: (P,) float64 areas of the predictions.
        num_frames: number of time steps.
        margin: the share must exceed a half by more than this.
    """
    rows, columns, _ = box_pairs(regions, predictions, num_frames)
    a, b = regions.boxes[rows], predictions.boxes[columns]
    shared = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).prod(axis=1)
    inside = np.zeros(len(predictions), bool)
    inside[columns[shared / areas[columns] > INSIDE + margin]] = True
    return inside


def masks_inside(predictions: Tracks, regions: Tracks, *, merged: bool, margin: float) -> NDArray[np.bool_]:
    """(P,) whether some region of its frame covers more than half of a predicted mask.

    Args:
        predictions, regions: with masks.
        merged: treat all regions of a frame as one, instead of each separately.
        margin: as in `boxes_inside`.
    """
    inside = np.zeros(len(predictions), bool)
    for frame in np.intersect1d(regions.frames, predictions.frames).tolist():
        rows = _of_frame(predictions, frame)
        around = _masks(regions, _of_frame(regions, frame))
        if merged:
            around = [coco.merge(around)]
        shares = np.asarray(coco.iou(_masks(predictions, rows), around, [1] * len(around)))
        inside[rows] = (shares > INSIDE + margin).any(axis=1)
    return inside


def unmatched_inside(overlaps: Overlaps, inside: NDArray[np.bool_], iou: Iou) -> NDArray[np.bool_]:
    """(P,) predictions to drop before HOTA or TETA: inside a region, and matched to no ground truth.

    Matches have an IoU of at least .5 and the largest sum of IoU in their frame (TrackEval 1.3.0, `bdd100k.py`); with
    masks, the number of matches is maximised first (`kitti_mots.py`).
    """
    concerned = np.zeros(overlaps.num_frames, bool)
    concerned[overlaps.pred_frames[inside]] = True
    near = (overlaps.pair_iou >= 0.5 - EPS) & concerned[overlaps.pair_frames]
    weights = np.where(near, overlaps.pair_iou + (_MATCHES_FIRST if iou == "mask" else 0.0), 0)
    dropped = inside.copy()
    dropped[overlaps.pair_pred[best_pairs(overlaps, weights)]] = False
    return dropped


def overlapping_masks(tracks: Tracks) -> NDArray[np.int64]:
    """Frames in which two masks share a pixel, ascending."""
    overlapping = []
    for frame in np.unique(tracks.frames).tolist():
        here = _masks(tracks, _of_frame(tracks, frame))
        if len(here) > 1 and int(coco.area(coco.merge(here))) < int(mask_areas(here).sum()):
            overlapping.append(frame)
    return np.array(overlapping, np.int64)


def _of_frame(tracks: Tracks, frame: int) -> slice:
    return slice(*np.searchsorted(tracks.frames, [frame, frame + 1]).tolist())


def _masks(tracks: Tracks, rows: slice) -> list[Any]:
    assert tracks.masks is not None
    masks: list[Any] = tracks.masks[rows].tolist()
    return masks
