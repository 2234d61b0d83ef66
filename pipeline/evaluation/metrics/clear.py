"""CLEAR MOT: Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance", JIVP 2008.

Numbers agree with TrackEval 1.3.0 (`metrics/clear.py`): matches need an IoU of at least .5; in each frame, pairs that
continue from the previous frame are matched first, then those with the largest sum of IoU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.assignment import FrameSolver, crowded_frames
from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.overlaps import Overlaps

_CONTINUED = 1000.0
"""Bonus of a pair that continues from the previous frame (TrackEval's figure): more than any sum of IoU in a frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """The matches of one video, ascending by frame; timelines and pictures use them.

    Args:
        rows_gt, rows_pred: (M,) rows of the overlaps.
        switched: (M,) bool, whether the previous match of the ground-truth identity was with another prediction.
        before: (M,) predicted identity of that previous match, -1 without one.
    """

    rows_gt: NDArray[np.int64]
    rows_pred: NDArray[np.int64]
    switched: NDArray[np.bool_]
    before: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClearCounts:
    """Counts of one or more videos; `+` pools videos and drops `matches`.

    Args:
        tp, fn, fp: matched objects, ground truth without a match, predictions without a match.
        idsw: matches whose ground-truth identity was last matched with another prediction.
        frag: times a ground-truth identity is matched again after a gap.
        mt, pt, ml: identities matched in more than 80 %, in 20 to 80 %, in less than 20 % of their frames.
        iou: sum over the matches.
    """

    tp: int = 0
    fn: int = 0
    fp: int = 0
    idsw: int = 0
    frag: int = 0
    mt: int = 0
    pt: int = 0
    ml: int = 0
    iou: float = 0.0
    matches: Matches | None = None

    @classmethod
    def none(cls) -> ClearCounts:
        """The counts before any video."""
        return cls()

    def __add__(self, other: ClearCounts) -> ClearCounts:
        names = [name for name in self.__dataclass_fields__ if name != "matches"]
        return ClearCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def scores(self) -> dict[str, float]:
        """MOTA = 1 - (FN + FP + IDSW) / GT (eq. 2 of the paper), MOTP = mean IoU of the matches; fractions."""
        gt = max(1, self.tp + self.fn)
        return {
            "MOTA": (self.tp - self.fp - self.idsw) / gt,
            "MOTP": self.iou / max(1, self.tp),
            "MODA": (self.tp - self.fp) / gt,
            "sMOTA": (self.iou - self.fp - self.idsw) / gt,
            "Recall": self.tp / gt,
            "Precision": self.tp / max(1, self.tp + self.fp),
        }

    def counts(self) -> dict[str, int]:
        """Under the names of the benchmarks' tables."""
        return {
            "IDSW": self.idsw,
            "Frag": self.frag,
            "MT": self.mt,
            "PT": self.pt,
            "ML": self.ml,
            "TP": self.tp,
            "FN": self.fn,
            "FP": self.fp,
        }


def clear(overlaps: Overlaps) -> ClearCounts:
    """Count one video."""
    chosen = _match(overlaps)
    rows_gt, rows_pred = overlaps.pair_gt[chosen], overlaps.pair_pred[chosen]
    gt, pred, frame = overlaps.gt_ids[rows_gt], overlaps.pred_ids[rows_pred], overlaps.gt_frames[rows_gt]

    # Each identity's matches in the order of time: a switch is a match with another prediction than the previous one, a
    # fragment begins where the previous frame has no match. Frames without ground truth or predictions do not count.
    order = np.argsort(gt, kind="stable")
    same = gt[order][1:] == gt[order][:-1]
    before = np.full(len(chosen), -1, np.int64)
    before[order[1:][same]] = pred[order[:-1][same]]
    switched = (before >= 0) & (before != pred)
    place = np.cumsum(_active(overlaps))[frame]
    gaps = same & (place[order][1:] != place[order][:-1] + 1)

    present = np.bincount(overlaps.gt_ids, minlength=overlaps.num_gt_ids)
    ratio = np.bincount(gt, minlength=overlaps.num_gt_ids) / np.maximum(1, present)
    mt, tracked = int((ratio > 0.8).sum()), int((ratio >= 0.2).sum())
    return ClearCounts(
        tp=len(chosen),
        fn=overlaps.num_gt - len(chosen),
        fp=overlaps.num_pred - len(chosen),
        idsw=int(switched.sum()),
        frag=int(gaps.sum()),
        mt=mt,
        pt=tracked - mt,
        ml=overlaps.num_gt_ids - tracked,
        iou=float(overlaps.pair_iou[chosen].sum()),
        matches=Matches(rows_gt=rows_gt, rows_pred=rows_pred, switched=switched, before=before),
    )


def _match(overlaps: Overlaps) -> NDArray[np.int64]:
    """Numbers of the matched pairs, ascending."""
    weights = np.where(overlaps.pair_iou >= 0.5 - EPS, overlaps.pair_iou, 0)
    candidates = np.flatnonzero(weights)
    crowded = crowded_frames(overlaps, candidates)
    simple = candidates[~crowded[overlaps.pair_frames[candidates]]]
    active = np.flatnonzero(_active(overlaps)).tolist()
    earlier = dict(zip(active[1:], active[:-1]))
    starts = np.searchsorted(overlaps.pair_frames[candidates], np.arange(overlaps.num_frames + 1)).tolist()
    gt, pred = overlaps.gt_ids[overlaps.pair_gt], overlaps.pred_ids[overlaps.pair_pred]
    partner = np.full(overlaps.num_gt_ids, -1)  # in the frame before
    solver = FrameSolver(overlaps)
    solved: dict[int, NDArray[np.int64]] = {}
    for frame in np.flatnonzero(crowded).tolist():
        last = earlier.get(frame)
        if last is not None:
            previous = solved[last] if last in solved else candidates[starts[last] : starts[last + 1]]
            here = candidates[starts[frame] : starts[frame + 1]]
            partner[gt[previous]] = pred[previous]
            weights[here[partner[gt[here]] == pred[here]]] += _CONTINUED
            partner[gt[previous]] = -1
        solver.solve(frame, weights)
        solved[frame] = solver.chosen(weights)
    return np.sort(np.concatenate([simple, *solved.values()]))


def _active(overlaps: Overlaps) -> NDArray[np.bool_]:
    """(T,) frames that hold both ground truth and predictions; TrackEval skips all others."""
    active: NDArray[np.bool_] = (np.diff(overlaps.gt_starts) > 0) & (np.diff(overlaps.pred_starts) > 0)
    return active
