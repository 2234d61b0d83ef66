"""HOTA and its parts: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021.

Numbers agree with TrackEval 1.3.0 (`metrics/hota.py`). TrackEval loops over 19 thresholds in each frame; this code uses
that the assignment of a frame is the same at all of them, and counts each pair at all thresholds up to its IoU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.assignment import best_pairs
from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.overlaps import Overlaps
from trackmill.pipeline.evaluation.row_sums import gt_sums, pred_sums

THRESHOLDS = np.arange(0.05, 0.99, 0.05)
"""(19,) localisation thresholds alpha."""

_DENSE = 1 << 22
"""Up to this many pairs of identities are summed in a table; more are sorted, to save memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HotaCounts:
    """Sums over the matches at each threshold, each (19,) float64; `+` pools videos.

    Args:
        tp, fn, fp: matched pairs, ground truth without a match, predictions without a match.
        association, recall, precision: over the matches, of A(c), AssRe(c) and AssPr(c) (eq. 7-9 of the paper).
        iou: over the matches.
    """

    tp: NDArray[np.float64]
    fn: NDArray[np.float64]
    fp: NDArray[np.float64]
    association: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    iou: NDArray[np.float64]

    @classmethod
    def none(cls) -> HotaCounts:
        """The counts before any video."""
        return cls(**{name: np.zeros(len(THRESHOLDS)) for name in cls.__dataclass_fields__})

    def __add__(self, other: HotaCounts) -> HotaCounts:
        return HotaCounts(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})

    def curves(self) -> dict[str, NDArray[np.float64]]:
        """Every score at each threshold, (19,), fractions."""
        matched = np.maximum(1, self.tp)
        detection = self.tp / np.maximum(1, self.tp + self.fn + self.fp)
        recall = self.tp / np.maximum(1, self.tp + self.fn)
        association = self.association / matched
        return {
            "HOTA": np.sqrt(detection * association),
            "DetA": detection,
            "AssA": association,
            "DetRe": recall,
            "DetPr": self.tp / np.maximum(1, self.tp + self.fp),
            "AssRe": self.recall / matched,
            "AssPr": self.precision / matched,
            # Without any match the localisation counts as perfect, in TrackEval too.
            "LocA": np.maximum(1e-10, self.iou) / np.maximum(1e-10, self.tp),
            "OWTA": np.sqrt(recall * association),
        }

    def scores(self) -> dict[str, float]:
        """Means over the thresholds (eq. 11), fractions."""
        return {name: float(values.mean()) for name, values in self.curves().items()}


def hota(overlaps: Overlaps) -> HotaCounts:
    """Count one video."""
    num_gt, num_pred = overlaps.num_gt, overlaps.num_pred
    if len(overlaps.pair_iou) == 0:
        fn, fp = np.full(len(THRESHOLDS), float(num_gt)), np.full(len(THRESHOLDS), float(num_pred))
        return _replaced(HotaCounts.none(), fn=fn, fp=fp)
    iou = overlaps.pair_iou
    who = overlaps.gt_ids[overlaps.pair_gt] * overlaps.num_pred_ids + overlaps.pred_ids[overlaps.pair_pred]
    frames_gt = np.bincount(overlaps.gt_ids, minlength=overlaps.num_gt_ids)
    frames_pred = np.bincount(overlaps.pred_ids, minlength=overlaps.num_pred_ids)

    chosen = best_pairs(overlaps, alignment(overlaps, who, frames_gt, frames_pred) * iou)
    # A match with IoU x counts at the thresholds alpha <= x: at the first `passed` of them.
    passed = np.searchsorted(THRESHOLDS - EPS, iou[chosen], side="right")
    identities, which = np.unique(who[chosen], return_inverse=True)
    steps = len(THRESHOLDS) + 1
    histogram = np.bincount(which * steps + passed, minlength=len(identities) * steps).reshape(-1, steps)
    matches = _from_above(histogram.astype(np.float64))  # (pairs of identities, 19)
    in_gt = frames_gt[identities // overlaps.num_pred_ids][:, None]
    in_pred = frames_pred[identities % overlaps.num_pred_ids][:, None]
    tp = matches.sum(axis=0)
    return HotaCounts(
        tp=tp,
        fn=num_gt - tp,
        fp=num_pred - tp,
        association=(matches * matches / np.maximum(1, in_gt + in_pred - matches)).sum(axis=0),
        recall=(matches * matches / in_gt).sum(axis=0),
        precision=(matches * matches / in_pred).sum(axis=0),
        iou=_from_above(np.bincount(passed, iou[chosen], minlength=steps).astype(np.float64)),
    )


def alignment(
    overlaps: Overlaps, who: NDArray[np.int64], frames_gt: NDArray[Any], frames_pred: NDArray[Any]
) -> NDArray[np.float64]:
    """Global alignment score of the two identities of each pair, (K,): a soft Jaccard index over the whole video.

    In each frame, a pair counts as its IoU divided by the summed IoU of its two objects, so two objects that overlap
    only each other count 1 (TrackEval's `potential_matches_count`, section 3.4 of the paper's supplement).

    Args:
        overlaps: K pairs.
        who: (K,) number of the pair of identities, ground-truth id times `num_pred_ids` plus predicted id.
        frames_gt, frames_pred: number of frames of each id.
    """
    iou, rows, columns = overlaps.pair_iou, overlaps.pair_gt, overlaps.pair_pred
    total = pred_sums(overlaps)[columns] + gt_sums(overlaps)[rows] - iou
    share = np.where(total > EPS, iou / np.maximum(total, EPS), 0)
    size = overlaps.num_gt_ids * overlaps.num_pred_ids
    if size <= _DENSE:
        together = np.bincount(who, share, minlength=size)[who]
    else:
        _, which = np.unique(who, return_inverse=True)
        together = np.bincount(which, share)[which]
    score: NDArray[np.float64] = together / (
        frames_gt[overlaps.gt_ids[rows]] + frames_pred[overlaps.pred_ids[columns]] - together
    )
    return score


def _from_above(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn a histogram over the number of passed thresholds (last axis, 0..19) into sums at each of the 19."""
    return np.flip(np.cumsum(np.flip(histogram, -1), -1), -1)[..., 1:]


def _replaced(counts: HotaCounts, **changes: NDArray[np.float64]) -> HotaCounts:
    return HotaCounts(**{name: changes.get(name, getattr(counts, name)) for name in counts.__dataclass_fields__})
