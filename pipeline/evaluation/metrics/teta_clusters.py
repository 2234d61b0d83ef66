"""TETA's clusters: which predictions are compared with the ground truth of a class, whatever their predicted class.

As in Li et al., "Tracking Every Thing in the Wild", ECCV 2022, section 4.2, and in `datasets/_base_dataset.py` and
`datasets/tao.py` of the official tool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.metrics.teta_matching import Problem, match
from trackmill.pipeline.evaluation.overlaps import Overlaps

Ints = NDArray[np.int64]

CLUSTER_IOU = 0.5
"""A prediction belongs to the cluster of a ground-truth object if their IoU is at least this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """The matching problem of one video, split by class; a prediction may be in several classes.

    Args:
        problem: n ground-truth objects and m predictions, a cell for each (class, frame).
        gt_class: (n,) number of the class of each ground-truth object.
        pred_class: (m,) number of the class each prediction is compared with.
        pred_rows: (m,) its row in the overlaps.
        inside: (m,) bool, whether the prediction itself is in a cluster, not only its track in another frame.
    """

    problem: Problem
    gt_class: Ints
    pred_class: Ints
    pred_rows: Ints
    inside: NDArray[np.bool_]


def find_clusters(overlaps: Overlaps, gt_class: Ints, num_classes: int, gt_labels: Ints) -> Clusters:
    """Cluster the predictions of one video.

    Args:
        overlaps: of all objects, G x P.
        gt_class: (G,) number of each ground-truth object's class, -1 where that is not evaluated.
        num_classes: exclusive upper bound of these numbers.
        gt_labels: (G,) category of each ground-truth object, evaluated or not.
    """
    num_pred, num_ids = max(1, overlaps.num_pred), max(1, overlaps.num_pred_ids)
    close = np.flatnonzero(overlaps.pair_iou >= CLUSTER_IOU)
    assigned = _assign_across_classes(overlaps, close)
    truth, guess = overlaps.pair_gt[close], overlaps.pair_pred[close]
    # A prediction that is assigned to an object of another class belongs there.
    free = (assigned[guess] < 0) | (gt_labels[assigned[guess]] == gt_labels[truth])
    member = np.flatnonzero(free & (gt_class[truth] >= 0))
    inside = np.unique(gt_class[truth[member]] * num_pred + guess[member])

    # All rows of every track that is in a cluster of the class, sorted by class, then row.
    tracks = np.unique(inside // num_pred * num_ids + overlaps.pred_ids[inside % num_pred])
    by_track = np.argsort(overlaps.pred_ids, kind="stable")
    lengths = np.bincount(overlaps.pred_ids, minlength=overlaps.num_pred_ids)
    count = lengths[tracks % num_ids]
    begin = (np.cumsum(lengths) - lengths)[tracks % num_ids]
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    rows = by_track[np.repeat(begin, count) + place]
    classes = np.repeat(tracks // num_ids, count)
    keys = np.sort(classes * num_pred + rows)
    pred_class, pred_rows = np.divmod(keys, num_pred)
    flags = np.zeros(len(keys), bool)
    flags[np.searchsorted(keys, inside)] = True

    evaluated = np.flatnonzero(gt_class >= 0)
    gt_rows = evaluated[np.argsort(gt_class[evaluated], kind="stable")]
    place_of = np.full(overlaps.num_gt, -1)
    place_of[gt_rows] = np.arange(len(gt_rows))
    wanted = gt_class[overlaps.pair_gt] * num_pred + overlaps.pair_pred
    position = np.searchsorted(keys, wanted)
    kept = (gt_class[overlaps.pair_gt] >= 0) & (position < len(keys))
    kept[kept] = keys[position[kept]] == wanted[kept]
    problem = Problem(
        num_cells=num_classes * overlaps.num_frames,
        gt_cells=gt_class[gt_rows] * overlaps.num_frames + overlaps.gt_frames[gt_rows],
        gt_ids=gt_class[gt_rows] * overlaps.num_gt_ids + overlaps.gt_ids[gt_rows],
        pred_cells=pred_class * overlaps.num_frames + overlaps.pred_frames[pred_rows],
        pred_ids=pred_class * num_ids + overlaps.pred_ids[pred_rows],
        pair_gt=place_of[overlaps.pair_gt[kept]],
        pair_pred=position[kept],
        pair_iou=overlaps.pair_iou[kept],
    )
    return Clusters(
        problem=problem, gt_class=gt_class[gt_rows], pred_class=pred_class, pred_rows=pred_rows, inside=flags
    )


def _assign_across_classes(overlaps: Overlaps, close: Ints) -> Ints:
    """(P,) ground-truth row that each prediction is assigned when classes are ignored, -1 for none.

    Only tracks with at least one of the `close` pairs (indices) take part.
    """
    tracks = np.zeros(overlaps.num_pred_ids, bool)
    tracks[overlaps.pred_ids[overlaps.pair_pred[close]]] = True
    keep = tracks[overlaps.pred_ids]
    rows = np.flatnonzero(keep)
    kept = keep[overlaps.pair_pred]
    matched_gt, matched_pred, iou = match(
        Problem(
            num_cells=overlaps.num_frames,
            gt_cells=overlaps.gt_frames,
            gt_ids=overlaps.gt_ids,
            pred_cells=overlaps.pred_frames[rows],
            pred_ids=overlaps.pred_ids[rows],
            pair_gt=overlaps.pair_gt[kept],
            pair_pred=(np.cumsum(keep) - 1)[overlaps.pair_pred[kept]],
            pair_iou=overlaps.pair_iou[kept],
        )
    )
    assigned = np.full(overlaps.num_pred, -1)
    matched = iou >= CLUSTER_IOU - EPS
    assigned[rows[matched_pred[matched]]] = matched_gt[matched]
    return assigned
