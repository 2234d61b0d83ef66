"""TETA: Li et al., "Tracking Every Thing in the Wild", ECCV 2022 (section 4).

Counts agree with the official tool (SysCV/tet, `teta/metrics/teta.py` and `datasets/_base_dataset.py`), which does some
things that the paper does not mention: a first assignment across all classes keeps a prediction out of the clusters of
other classes; a track that is in a cluster in one frame is matched in every frame; at threshold 0 objects match without
overlap; and a wrong class counts against the predicted class in every video. The tool loops over 20 thresholds for each
class and frame; this code matches all classes of a video at once, and counts each matched pair at all thresholds up to
its IoU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.metrics.teta_clusters import Clusters, find_clusters
from trackmill.pipeline.evaluation.metrics.teta_matching import match
from trackmill.pipeline.evaluation.overlaps import Overlaps
from trackmill.pipeline.evaluation.tracks import Video

THRESHOLDS = np.arange(0.0, 0.99, 0.05)
"""(20,) localisation thresholds; classification is scored at those of .5 and above."""
FIRST_OF_CLASS = 10
"""Index of threshold .5."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class TetaCounts:
    """Counts of one class; `+` pools videos.

    Args:
        loc_tp, loc_fn, loc_fp: (20,) int64, matches, ground truth without a match, clustered predictions without.
        association, recall, precision: (20,) float64, sums over the matches of the Jaccard index, recall and precision
            of the two identities.
        cls_tp, cls_fn, cls_fp: (10,) int64, matches of the right class, of a wrong class, and predictions of this class
            matched with another one; at the thresholds of .5 and above.
    """

    loc_tp: Ints
    loc_fn: Ints
    loc_fp: Ints
    association: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    cls_tp: Ints
    cls_fn: Ints
    cls_fp: Ints

    @classmethod
    def none(cls) -> TetaCounts:
        """The counts before any video."""
        return _NOTHING

    def __add__(self, other: TetaCounts) -> TetaCounts:
        if other is _NOTHING:
            return self
        return TetaCounts(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})

    @property
    def is_empty(self) -> bool:
        """Whether the class has neither ground truth nor clustered predictions; averages leave such a class out."""
        return not (self.loc_tp + self.loc_fn + self.loc_fp).any()

    def scores(self) -> dict[str, float]:
        """Means over the thresholds (equations 1-5), fractions; a ratio of nothing counts as 0, as in the tool."""
        matched = np.maximum(1, self.loc_tp)
        localisation = self.loc_tp / np.maximum(1, self.loc_tp + self.loc_fn + self.loc_fp)
        association = self.association / matched
        # ClsA is one number: the mean over its ten thresholds.
        classification = (self.cls_tp / np.maximum(1, self.cls_tp + self.cls_fn + self.cls_fp)).mean()
        scores = {
            "TETA": (localisation + association + classification) / 3,
            "LocA": localisation,
            "AssocA": association,
            "ClsA": classification,
            "LocRe": self.loc_tp / np.maximum(1, self.loc_tp + self.loc_fn),
            "LocPr": self.loc_tp / np.maximum(1, self.loc_tp + self.loc_fp),
            "AssocRe": self.recall / matched,
            "AssocPr": self.precision / matched,
            "ClsRe": self.cls_tp / np.maximum(1, self.cls_tp + self.cls_fn),
            "ClsPr": self.cls_tp / np.maximum(1, self.cls_tp + self.cls_fp),
        }
        return {name: float(np.mean(values)) for name, values in scores.items()}


def _nothing() -> TetaCounts:
    whole, real, of_class = np.zeros(20, np.int64), np.zeros(20), np.zeros(10, np.int64)
    for shared in (whole, real, of_class):
        shared.setflags(write=False)
    return TetaCounts(
        loc_tp=whole,
        loc_fn=whole,
        loc_fp=whole,
        association=real,
        recall=real,
        precision=real,
        cls_tp=of_class,
        cls_fn=of_class,
        cls_fp=of_class,
    )


_NOTHING = _nothing()


def average_teta(counts: Iterable[TetaCounts]) -> dict[str, float] | None:
    """Mean of each score over the classes that are not empty; None where there is none."""
    rows = [one.scores() for one in counts if not one.is_empty]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else None


def teta(video: Video, overlaps: Overlaps, labels: Sequence[int], exhaustive: bool = False) -> dict[int, TetaCounts]:
    """Count one video.

    Args:
        video: only the labels of its rows are used.
        overlaps: of all rows of the video, in their order.
        labels: the evaluated classes, each once, in the benchmark's order (which matters if `exhaustive`).
        exhaustive: every object of these classes is annotated, so predictions outside all clusters are wrong too
            (BDD100K).

    Returns:
        Counts of each of `labels`.
    """
    classes = np.asarray(labels, np.int64).reshape(-1)
    truth = _numbers(video.gt.labels, classes)
    present, group = np.unique(truth[truth >= 0], return_inverse=True)
    size = len(present)
    gt_class = np.full(len(truth), -1)
    gt_class[truth >= 0] = group
    clusters = find_clusters(overlaps, gt_class, size, video.gt.labels)
    matched_gt, matched_pred, iou = match(clusters.problem)

    passed = np.searchsorted(THRESHOLDS - EPS, iou, side="right")
    group = clusters.gt_class[matched_gt]
    loc_tp = _per_class(group, passed, size)
    loc_fn = np.bincount(clusters.gt_class, minlength=size)[:, None] - loc_tp
    clustered = clusters.inside[matched_pred]
    loc_fp = np.bincount(clusters.pred_class[clusters.inside], minlength=size)[:, None] - _per_class(
        group[clustered], passed[clustered], size
    )
    association, recall, precision = _association(clusters, matched_gt, matched_pred, passed, size)

    guesses = _numbers(video.predictions.labels, classes)
    guess = guesses[clusters.pred_rows[matched_pred]]
    right = guess == present[group]
    cls_tp = _per_class(group[right], passed[right], size)[:, FIRST_OF_CLASS:]
    wrong = np.flatnonzero(~right & (guess >= 0))
    if exhaustive:
        # When the tool reaches a class without clusters, it resets the false positives of that class, and so loses
        # those that earlier classes added.
        lone = np.ones(len(classes), bool)
        lone[present[clusters.pred_class]] = False
        wrong = wrong[~lone[guess[wrong]] | (present[group[wrong]] > guess[wrong])]
    cls_fp = _per_class(guess[wrong], passed[wrong], len(classes))[:, FIRST_OF_CLASS:]
    if exhaustive:
        own = clusters.inside & (guesses[clusters.pred_rows] == present[clusters.pred_class])
        outside = np.bincount(guesses[guesses >= 0], minlength=len(classes)) - np.bincount(
            present[clusters.pred_class[own]], minlength=len(classes)
        )
        cls_fp = cls_fp + outside[:, None]

    counts = dict.fromkeys(classes.tolist(), _NOTHING)
    for number in np.flatnonzero(cls_fp.any(axis=1)).tolist():
        counts[int(classes[number])] = replace(_NOTHING, cls_fp=cls_fp[number])
    for i, number in enumerate(present.tolist()):
        counts[int(classes[number])] = TetaCounts(
            loc_tp=loc_tp[i],
            loc_fn=loc_fn[i],
            loc_fp=loc_fp[i],
            association=association[i],
            recall=recall[i],
            precision=precision[i],
            cls_tp=cls_tp[i],
            cls_fn=loc_tp[i, FIRST_OF_CLASS:] - cls_tp[i],
            cls_fp=cls_fp[number],
        )
    return counts


def _numbers(labels: Ints, classes: Ints) -> Ints:
    """Index of each label in `classes`, -1 where it is not among them."""
    if not len(classes):
        return np.full(len(labels), -1)
    order = np.argsort(classes)
    nearest_index = order[np.minimum(np.searchsorted(classes, labels, sorter=order), len(classes) - 1)]
    return np.where(classes[nearest_index] == labels, nearest_index, -1)


def _per_class(group: Ints, passed: Ints, size: int) -> Ints:
    """(size, 20) number of matches of each group at each threshold; `passed` is the number that each match passes."""
    steps = len(THRESHOLDS) + 1
    histogram = np.bincount(group * steps + passed, minlength=size * steps).reshape(size, steps)
    return np.flip(np.cumsum(np.flip(histogram, 1), 1), 1)[:, 1:]


def _association(
    clusters: Clusters, matched_gt: Ints, matched_pred: Ints, passed: Ints, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(size, 20) sums over the matches of each class of the Jaccard index, recall and precision of the identities."""
    problem = clusters.problem
    width = int(problem.pred_ids.max(initial=0)) + 1
    identities, which = np.unique(
        problem.gt_ids[matched_gt] * width + problem.pred_ids[matched_pred], return_inverse=True
    )
    matches = _per_class(which, passed, len(identities))
    in_gt = np.bincount(problem.gt_ids)[identities // width][:, None] if len(identities) else matches
    in_pred = np.bincount(problem.pred_ids)[identities % width][:, None] if len(identities) else matches
    group = np.zeros(len(identities), np.int64)
    group[which] = clusters.gt_class[matched_gt]
    sums = np.zeros((3, size, len(THRESHOLDS)))
    for total, together in zip(sums, (in_gt + in_pred - matches, in_gt, in_pred)):
        np.add.at(total, group, matches * matches / np.maximum(1, together))
    return sums[0], sums[1], sums[2]
