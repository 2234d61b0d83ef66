"""Whole tracks of one video: a table with one entry for each, and their spatio-temporal IoU.

The IoU of two tracks is the intersection summed over frames, divided by the union summed over frames (Yang et al.,
"Video Instance Segmentation", ICCV 2019, section 3; Dave et al., "TAO", ECCV 2020, section 5). Masks are never decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from trackmill.pipeline.evaluation.overlaps import Iou, Overlaps, find_overlaps
from trackmill.pipeline.evaluation.tracks import Tracks, Video

# `area` of pycocotools 2.0.11 puts the number of masks into a byte, and NumPy 2 refuses more.
_MOST_MASKS = 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackTable:
    """One entry a track, in the order of the file, which decides ties. A track may have no row in `Tracks`.

    Args:
        ids: (N,) int64, as in `Tracks`.
        labels: (N,) int64 category id.
        scores: (N,) float64.
        areas: (N,) float64 mean area in square pixels.
        lengths: (N,) int64 number of frames with the track.
        ignored: (N,) bool, whether it is a crowd, which counts neither as a match nor as a miss.
        occlusion: (N,) float64 occlusion 0..1, NaN where unknown.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    lengths: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    occlusion: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


def mask_areas(masks: Sequence[Any]) -> NDArray[np.float64]:
    """(N,) number of pixels of each COCO RLE."""
    parts = [coco.area(list(masks[i : i + _MOST_MASKS])) for i in range(0, len(masks), _MOST_MASKS)]
    return np.concatenate([np.zeros(0), *parts])


def mask_boxes(masks: Sequence[Any]) -> NDArray[np.float64]:
    """(N, 4) tight box `xyxy` of each COCO RLE, zeros for an empty one."""
    boxes = np.array(coco.toBbox(list(masks)), np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def row_areas(tracks: Tracks, iou: Iou) -> NDArray[np.float64]:
    """(N,) area of each box or mask in square pixels."""
    if iou == "mask":
        return mask_areas([] if tracks.masks is None else tracks.masks.tolist())
    return (tracks.boxes[:, 2] - tracks.boxes[:, 0]) * (tracks.boxes[:, 3] - tracks.boxes[:, 1])


def track_table(tracks: Tracks, iou: Iou) -> TrackTable:
    """The table of `tracks`, in the order of their first rows: that row's label, mean score, mean area (TAO's rule)."""
    ids, first, which, lengths = np.unique(tracks.ids, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first, kind="stable")
    means = _means(tracks.scores[np.argsort(which, kind="stable")], lengths)
    ignored = np.bincount(which, tracks.ignored, len(ids)) > 0
    areas = np.bincount(which, row_areas(tracks, iou), len(ids)) / np.maximum(lengths, 1)
    return TrackTable(
        ids=ids[order],
        labels=tracks.labels[first][order],
        scores=means[order],
        areas=areas[order],
        lengths=lengths[order],
        ignored=ignored[order],
        occlusion=np.full(len(ids), np.nan),
    )


def track_ious(
    video: Video, gt: TrackTable, predictions: TrackTable, iou: Iou, overlaps: Overlaps | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """IoU of every two tracks of the same label that overlap somewhere.

    Args:
        video: its rows; ids of rows are in the tables.
        gt, predictions: G and P tracks.
        iou: of boxes or masks.
        overlaps: `find_overlaps` of all rows of the video; None computes it.

    Returns:
        K entries of `gt`, of `predictions`, and the IoU of the two, in (0, 1].
    """
    if overlaps is None:
        overlaps = find_overlaps(video.gt, video.predictions, video.num_frames, iou)
    gt_of, pred_of = _entries(gt.ids, video.gt.ids), _entries(predictions.ids, video.predictions.ids)
    gt_areas, pred_areas = row_areas(video.gt, iou), row_areas(video.predictions, iou)
    alike = np.flatnonzero(gt.labels[gt_of[overlaps.pair_gt]] == predictions.labels[pred_of[overlaps.pair_pred]])
    rows, columns = overlaps.pair_gt[alike], overlaps.pair_pred[alike]
    if iou == "mask":
        # IoU x of areas a and b means x (a + b) / (1 + x) shared pixels, a whole number.
        share = overlaps.pair_iou[alike] / (1 + overlaps.pair_iou[alike])
        shared = np.rint(share * (gt_areas[rows] + pred_areas[columns]))
    else:
        shared = _shared_areas(video.gt.boxes[rows], video.predictions.boxes[columns])
    pairs, which = np.unique(gt_of[rows] * len(predictions) + pred_of[columns], return_inverse=True)
    together = np.bincount(which, shared, len(pairs))
    of_gt, of_pred = pairs // max(1, len(predictions)), pairs % max(1, len(predictions))
    gt_sums = np.bincount(gt_of, gt_areas, len(gt))
    pred_sums = np.bincount(pred_of, pred_areas, len(predictions))
    union = gt_sums[of_gt] + pred_sums[of_pred] - together
    return of_gt, of_pred, np.where(union > 0, together / np.where(union > 0, union, 1), 0)


def _means(values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of each run of `values`; runs of one length are averaged together, so that NumPy adds as `np.mean` does."""
    starts = np.cumsum(lengths) - lengths
    means = np.zeros(len(lengths))
    for length in np.unique(lengths).tolist():
        here = np.flatnonzero(lengths == length)
        means[here] = values[starts[here][:, None] + np.arange(length)].mean(axis=1)
    return means


def _entries(table_ids: NDArray[np.int64], row_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Entry of the table that each row belongs to."""
    order = np.argsort(table_ids, kind="stable")
    return order[np.searchsorted(table_ids, row_ids, sorter=order)]


def _shared_areas(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared: NDArray[np.float64] = np.maximum(sides[:, 0], 0) * np.maximum(sides[:, 1], 0)
    return shared
