"""CLEAR and identity scores as BDD100K publishes them: motmetrics' rules, as the Scalabel toolkit calls them.

Numbers agree with motmetrics 1.4.0 (`mot.py`, `metrics.py`) under Scalabel's `eval/mot.py` (commit 9a48ee4). The
differences from TrackEval's CLEAR (`clear.py`): a pair is kept as long as it overlaps, also across frames in which one
of the two is absent; the rest is matched by the smallest sum of distances 1 - IoU; MOTP is one minus the mean distance;
fragments are gaps between matched frames in which the object is present; mostly tracked means at least 80 %.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trackmill.pipeline.evaluation.assignment import crowded_frames
from trackmill.pipeline.evaluation.metrics.clear import Matches
from trackmill.pipeline.evaluation.metrics.identity import identity
from trackmill.pipeline.evaluation.overlaps import Overlaps

MAX_DISTANCE = 0.5
"""Pairs with 1 - IoU above this never match."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BddClearCounts:
    """Counts of one or more classes and videos; `+` pools them and drops `matches`.

    Args:
        gt, predictions: objects over all frames; predictions dropped in ignored regions do not count.
        matched: ground-truth objects with a match.
        idsw: matches whose object was last matched with another prediction.
        frag: gaps in an object's matches; frames without the object do not count.
        mt, pt, ml: objects matched in at least 80 %, in 20 to 80 %, in less than 20 % of their frames.
        distance: sum of 1 - IoU over the matches.
        idtp: identity true positives: matched frames under the best one-to-one pairing of identities.
        matches: of one class of one video; timelines and pictures use them.
    """

    gt: int = 0
    predictions: int = 0
    matched: int = 0
    idsw: int = 0
    frag: int = 0
    mt: int = 0
    pt: int = 0
    ml: int = 0
    distance: float = 0.0
    idtp: int = 0
    matches: Matches | None = None

    @classmethod
    def none(cls) -> BddClearCounts:
        """The counts before any video."""
        return cls()

    def __add__(self, other: BddClearCounts) -> BddClearCounts:
        names = [name for name in self.__dataclass_fields__ if name != "matches"]
        return BddClearCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def clear_scores(self) -> dict[str, float]:
        """MOTA and MOTP, fractions; not finite where there is no ground truth or no match."""
        wrong = self.gt - self.matched + self.predictions - self.matched + self.idsw
        nothing = -np.inf if wrong else np.nan
        return {
            "MOTA": 1 - wrong / self.gt if self.gt else nothing,
            "MOTP": 1 - self.distance / self.matched if self.matched else np.nan,
        }

    def identity_scores(self) -> dict[str, float]:
        """IDF1, IDP and IDR, fractions; NaN without any object."""
        both = self.gt + self.predictions
        return {
            "IDF1": 2 * self.idtp / both if both else np.nan,
            "IDP": self.idtp / self.predictions if self.predictions else np.nan,
            "IDR": self.idtp / self.gt if self.gt else np.nan,
        }

    def counts(self) -> dict[str, int]:
        """Under the names of our tables; motmetrics calls Frag `num_fragmentations`, BDD100K `FM`."""
        return {
            "IDSW": self.idsw,
            "Frag": self.frag,
            "FP": self.predictions - self.matched,
            "FN": self.gt - self.matched,
            "MT": self.mt,
            "PT": self.pt,
            "ML": self.ml,
        }


def bdd_clear(overlaps: Overlaps) -> BddClearCounts:
    """Count one class of one video, after `keep_outside` has removed predictions in ignored regions."""
    distances = 1 - overlaps.pair_iou
    close = distances <= MAX_DISTANCE
    chosen = _match(overlaps, distances, np.flatnonzero(close))
    gt, pred = overlaps.gt_ids[overlaps.pair_gt[chosen]], overlaps.pred_ids[overlaps.pair_pred[chosen]]
    order = np.argsort(gt, kind="stable")
    same = gt[order][1:] == gt[order][:-1]
    before = np.full(len(chosen), -1, np.int64)
    before[order[1:][same]] = pred[order[:-1][same]]
    switched = (before >= 0) & (before != pred)

    # Each object's frames in order; a gap lies between two matched frames that are not consecutive.
    rows = np.argsort(overlaps.gt_ids, kind="stable")
    has_match = np.zeros(overlaps.num_gt, bool)
    has_match[overlaps.pair_gt[chosen]] = True
    places = np.flatnonzero(has_match[rows])
    owner = overlaps.gt_ids[rows[places]]
    gaps = (owner[1:] == owner[:-1]) & (places[1:] > places[:-1] + 1)

    present = np.bincount(overlaps.gt_ids, minlength=overlaps.num_gt_ids)
    ratio = np.bincount(gt, minlength=overlaps.num_gt_ids) / present
    mt, tracked = int((ratio >= 0.8).sum()), int((ratio >= 0.2).sum())
    return BddClearCounts(
        gt=overlaps.num_gt,
        predictions=overlaps.num_pred,
        matched=len(chosen),
        idsw=int(switched.sum()),
        frag=int(gaps.sum()),
        mt=mt,
        pt=tracked - mt,
        ml=overlaps.num_gt_ids - tracked,
        distance=float(distances[chosen].sum()),
        idtp=identity(_as_certain(overlaps, close)).idtp,
        matches=Matches(
            rows_gt=overlaps.pair_gt[chosen],
            rows_pred=overlaps.pair_pred[chosen],
            switched=switched,
            before=before,
        ),
    )


def keep_outside(overlaps: Overlaps, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(P,) predictions to keep: all but those inside an ignored region that match no ground truth of their class.

    Args:
        overlaps: one class of one video.
        inside: (P,) predictions that lie inside an ignored region.
    """
    distances = 1 - overlaps.pair_iou
    concerned = np.zeros(overlaps.num_frames, bool)
    concerned[overlaps.pred_frames[inside]] = True
    close = np.flatnonzero((distances <= MAX_DISTANCE) & concerned[overlaps.pair_frames])
    crowded = crowded_frames(overlaps, close)
    keep = ~inside
    keep[overlaps.pair_pred[close[~crowded[overlaps.pair_frames[close]]]]] = True
    for frame, pairs in _by_frame(overlaps, close, crowded):
        keep[overlaps.pair_pred[_cheapest(overlaps, distances, frame, pairs)]] = True
    return keep


def inclusive_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU (N,) of box i of `a` with box i of `b`, both (N, 4) Scalabel's `x1, y1, x2, y2`, where x2 is the last pixel.

    Operations are in the order of motmetrics' `distances.py`, so that the same pairs are on either side of .5.
    """
    size_a, size_b = a[:, 2:] - a[:, :2] + 1, b[:, 2:] - b[:, :2] + 1
    shared = np.minimum(a[:, :2] + size_a, b[:, :2] + size_b) - np.maximum(a[:, :2], b[:, :2])
    intersection = np.maximum(shared, 0).prod(axis=1)
    iou: NDArray[np.float64] = intersection / (size_a.prod(axis=1) + size_b.prod(axis=1) - intersection)
    return iou


def _match(overlaps: Overlaps, distances: NDArray[np.float64], close: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the matched pairs, ascending.

    Earlier matches matter only in frames where an object is in two pairs; in all others, every pair matches.
    """
    crowded = crowded_frames(overlaps, close)
    simple = close[~crowded[overlaps.pair_frames[close]]]
    gt, pred = overlaps.gt_ids[overlaps.pair_gt], overlaps.pred_ids[overlaps.pair_pred]
    partner = np.full(overlaps.num_gt_ids, -1, np.int64)  # of each object's last match
    solved = [simple]
    done = 0
    for frame, pairs in _by_frame(overlaps, close, crowded):
        upto = int(np.searchsorted(overlaps.pair_frames[simple], frame))
        since = simple[done:upto]
        partner[gt[since]] = pred[since]
        done = upto
        chosen = _continued(overlaps, pairs[partner[gt[pairs]] == pred[pairs]])
        free = ~np.isin(overlaps.pair_gt[pairs], overlaps.pair_gt[chosen])
        free &= ~np.isin(overlaps.pair_pred[pairs], overlaps.pair_pred[chosen])
        chosen = np.concatenate([chosen, _cheapest(overlaps, distances, frame, pairs[free])])
        partner[gt[chosen]] = pred[chosen]
        solved.append(chosen)
    return np.sort(np.concatenate(solved))


def _by_frame(
    overlaps: Overlaps, pairs: NDArray[np.int64], frames: NDArray[np.bool_]
) -> list[tuple[int, NDArray[np.int64]]]:
    """Each frame that `frames` (T,) marks, with its part of the ascending `pairs`."""
    starts = np.searchsorted(overlaps.pair_frames[pairs], np.arange(overlaps.num_frames + 1)).tolist()
    return [(frame, pairs[starts[frame] : starts[frame + 1]]) for frame in np.flatnonzero(frames).tolist()]


def _continued(overlaps: Overlaps, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """If two objects last had the same partner, the first in the file keeps it."""
    _, first = np.unique(overlaps.pair_pred[pairs], return_index=True)
    return pairs[np.sort(first)]


def _cheapest(
    overlaps: Overlaps, distances: NDArray[np.float64], frame: int, pairs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The one-to-one choice of as many of a frame's pairs as possible, with the smallest sum of distances.

    The solver gets the frame's whole matrix, with motmetrics' cost for pairs that may not match: its choice among equal
    sums depends on both.
    """
    if pairs.size == 0:
        return pairs
    shape = (
        int(overlaps.gt_starts[frame + 1] - overlaps.gt_starts[frame]),
        int(overlaps.pred_starts[frame + 1] - overlaps.pred_starts[frame]),
    )
    rows = overlaps.pair_gt[pairs] - overlaps.gt_starts[frame]
    columns = overlaps.pair_pred[pairs] - overlaps.pred_starts[frame]
    cost = np.full(shape, 2 * min(shape) * (distances[pairs].max() + 1) + 1)
    cost[rows, columns] = distances[pairs]
    number = np.full(shape, -1, np.int64)
    number[rows, columns] = pairs
    taken: NDArray[np.int64] = number[linear_sum_assignment(cost)]
    return taken[taken >= 0]


def _as_certain(overlaps: Overlaps, close: NDArray[np.bool_]) -> Overlaps:
    """Only the pairs that may match, each with IoU 1, because identity scores need only a yes or no."""
    return replace(
        overlaps,
        pair_gt=overlaps.pair_gt[close],
        pair_pred=overlaps.pair_pred[close],
        pair_iou=np.ones(int(close.sum())),
    )
