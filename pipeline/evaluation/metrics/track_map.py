"""Average precision of whole tracks: TAO's Track mAP and the metric of YouTube-VIS, OVIS and UVO.

A predicted track is right when its spatio-temporal IoU with a ground-truth track of its class reaches a threshold (.50
to .95 in steps of .05); predictions are matched in the order of their scores. The rules are those of TrackEval 1.3.0
(`metrics/track_map.py` on `datasets/tao.py`; Dave et al., "TAO", ECCV 2020) and of the YouTube-VIS and OVIS APIs
(`ytvoseval.py`, `oviseval.py`; Yang et al., ICCV 2019; Qi et al., IJCV 2022). The two differ in the ranges of sizes, in
how many tracks count, in the rounding of thresholds, and in what is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.metrics.track_overlaps import TrackTable, track_ious, track_table
from trackmill.pipeline.evaluation.overlaps import Iou, Overlaps
from trackmill.pipeline.evaluation.tracks import Video

RECALLS = np.linspace(0, 1, 101)
"""(101,) recalls at which precision is sampled."""

Protocol = Literal["tao", "youtube-vis"]
Scores = dict[str, float | None]

# Boxes are stored as corners, so an area of exactly 32 x 32 may be off by a rounding error.
_SLACK = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A range of ground-truth tracks that is scored on its own, bounds included. Tracks outside are ignored."""

    name: str
    area: tuple[float, float] | None = None
    length: tuple[float, float] | None = None
    occlusion: tuple[float, float] | None = None

    def excludes(self, tracks: TrackTable) -> NDArray[np.bool_]:
        """(N,) whether each track is outside by area or length."""
        outside = np.zeros(len(tracks), bool)
        if self.area is not None:
            outside |= _outside(tracks.areas, (self.area[0] * (1 - _SLACK), self.area[1] * (1 + _SLACK)))
        if self.length is not None:
            outside |= _outside(tracks.lengths, self.length)
        return outside

    def excludes_truth(self, tracks: TrackTable) -> NDArray[np.bool_]:
        """(N,) whether each ground-truth track is outside; occlusion is known for ground truth only."""
        outside = self.excludes(tracks)
        return outside if self.occlusion is None else outside | _outside(tracks.occlusion, self.occlusion)


_TAO_RANGES = (
    Range(name="all"),
    Range(name="area_s", area=(0, 32**2)),
    Range(name="area_m", area=(32**2, 96**2)),
    Range(name="area_l", area=(96**2, 1e10)),
    Range(name="time_s", length=(0, 3)),
    Range(name="time_m", length=(3, 10)),
    Range(name="time_l", length=(10, 1e5)),
)
_VIS_RANGES = (
    Range(name="all"),
    Range(name="s", area=(0, 128**2)),
    Range(name="m", area=(128**2, 256**2)),
    Range(name="l", area=(256**2, 1e10)),
    Range(name="so", occlusion=(0, 0.25)),
    Range(name="mo", occlusion=(0.25, 0.5)),
    Range(name="ho", occlusion=(0.5, 1)),
)
_VIS_TRACKS = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    """Tracks of one class in one video: D predictions, best first, and G of the ground truth; M ranges.

    Args:
        scores: (D,).
        near: (N,) ascending indices of predictions whose IoU with some ground truth reaches the lowest threshold.
        iou: (N, G) IoU of those.
        truth_outside: (M, G) ground truth that is ignored.
        outside: (M, D) predictions that are ignored unless they match.
        crowd: (G,) ground truth that may be matched any number of times.
        number_zero: (N,) whether each of `near` has id 0; see `TrackMap.add`.
    """

    video: str
    scores: NDArray[np.float64]
    near: NDArray[np.int64]
    iou: NDArray[np.float64]
    truth_outside: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    number_zero: NDArray[np.bool_]


class TrackMap:
    """Collects videos, then scores classes."""

    def __init__(self, protocol: Protocol, iou: Iou) -> None:
        self.protocol = protocol
        self.iou: Iou = iou
        self.ranges = _TAO_RANGES if protocol == "tao" else _VIS_RANGES
        # The thresholds of the two tools differ in the last bit.
        thresholds = np.arange(0.5, 0.96, 0.05) - EPS if protocol == "tao" else np.linspace(0.5, 0.95, 10)
        self.thresholds = np.minimum(thresholds, 1 - 1e-10)
        self._groups: dict[int, list[_Group]] = {}
        self._videos_with_zero = 0

    @property
    def names(self) -> list[str]:
        """Names of the scores of a class, as in `scores`."""
        return list(self._score([]))

    def add(
        self,
        video: Video,
        *,
        negative_labels: Collection[int] = (),
        not_exhaustive_labels: Collection[int] = (),
        gt_tracks: TrackTable | None = None,
        predicted_tracks: TrackTable | None = None,
        overlaps: Overlaps | None = None,
    ) -> None:
        """Add one video. Equal scores are ordered by video, so the order of calls matters.

        Args:
            video: rows; ids of predictions as in the file. TrackEval mistakes track id 0 for "no match", so the ground
                truth that such a track matches can be matched again. "tao" reproduces that, unless several videos have
                a track 0 (then TrackEval renumbers them).
            negative_labels, not_exhaustive_labels: TAO's lists of the video: classes known to be absent, and classes of
                which not every object is annotated. Predictions of classes that are neither in the ground truth
                nor negative do not count, and unmatched ones of a class that is not exhaustive are ignored.
            gt_tracks, predicted_tracks: one entry a track; None makes them from the rows (`track_table`).
            overlaps: `find_overlaps` of the video; None computes it.
        """
        gt = track_table(video.gt, self.iou) if gt_tracks is None else gt_tracks
        predictions = track_table(video.predictions, self.iou) if predicted_tracks is None else predicted_tracks
        of_gt, of_pred, iou = track_ious(video, gt, predictions, self.iou, overlaps)
        enough = iou >= self.thresholds[0]
        of_gt, of_pred, iou = of_gt[enough], of_pred[enough], iou[enough]
        self._videos_with_zero += int((predictions.ids == 0).any())
        present = np.unique(gt.labels)
        counted = np.unique(np.append(present, list(negative_labels))) if self.protocol == "tao" else None
        labels = np.union1d(present, predictions.labels if counted is None else counted).astype(np.int64)
        # TrackEval reads no crowd flag from TAO's files.
        crowd = gt.ignored & (self.protocol == "youtube-vis")
        truth_outside = np.stack([scope.excludes_truth(gt) for scope in self.ranges]) | crowd
        outside = np.stack([scope.excludes(predictions) for scope in self.ranges])
        table = np.zeros((len(predictions), len(gt)))
        table[of_pred, of_gt] = iou
        for label in labels.tolist():
            truths = np.flatnonzero(gt.labels == label)
            guesses = np.flatnonzero(predictions.labels == label)
            guesses = guesses[np.argsort(-predictions.scores[guesses], kind="stable")]
            if self.protocol == "youtube-vis":
                guesses = guesses[:_VIS_TRACKS]
            if not len(truths) and not len(guesses):
                continue
            overlap = table[np.ix_(guesses, truths)]
            near = np.flatnonzero(overlap.any(axis=1))
            group = _Group(
                video=video.name,
                scores=predictions.scores[guesses],
                near=near,
                iou=overlap[near],
                truth_outside=truth_outside[:, truths],
                outside=outside[:, guesses] | (self.protocol == "tao" and label in not_exhaustive_labels),
                crowd=crowd[truths],
                number_zero=(predictions.ids[guesses[near]] == 0) & (self.protocol == "tao"),
            )
            self._groups.setdefault(label, []).append(group)

    def extend(self, other: TrackMap) -> None:
        """Add the videos of another one of the same protocol, after those that are here."""
        self._videos_with_zero += other._videos_with_zero
        for label, groups in other._groups.items():
            self._groups.setdefault(label, []).extend(groups)

    def scores(self, video: str | None = None) -> dict[int, Scores]:
        """Scores of each class that has ground truth, fractions; None where no ground truth lies in the range.

        Args:
            video: name of the one video to score; None takes all.

        Returns:
            By label. "tao": `AP_R` and `AR_R` for R in all, area_s, area_m, area_l, time_s, time_m, time_l, as
            TrackEval names them, each the mean over thresholds; `AP50` and `AP75`. "youtube-vis": `AP`, `AP50`,
            `AP75`, `AP_s`, `AP_m`, `AP_l`, `AR1`, `AR10`, `AR100` (best 1, 10, 100 tracks of a video), `AR_s`, `AR_m`,
            `AR_l`, and for light, medium and heavy occlusion `AP_so`, `AP_mo`, `AP_ho`, `AR_so`, `AR_mo`, `AR_ho`.
        """
        chosen = {
            label: [group for group in groups if video is None or group.video == video]
            for label, groups in sorted(self._groups.items())
        }
        return {
            label: self._score(groups) for label, groups in chosen.items() if any(len(group.crowd) for group in groups)
        }

    def _score(self, groups: list[_Group]) -> Scores:
        scores = np.concatenate([np.zeros(0), *(group.scores for group in groups)])
        order = np.argsort(-scores, kind="stable")
        rank = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(group.scores)) for group in groups)])[order]
        zero_counts = self._videos_with_zero == 1
        matches = [_match(group, self.thresholds, group.number_zero & zero_counts) for group in groups]
        nothing = np.zeros((len(self.thresholds), 0), bool)
        precision, recall = {}, {}
        tops: Scores = {}
        for index, scope in enumerate(self.ranges):
            num_truths = sum(int((~group.truth_outside[index]).sum()) for group in groups)
            matched = np.concatenate([nothing, *(matched[index] for matched, _ in matches)], axis=1)[:, order]
            void = np.concatenate([nothing, *(void[index] for _, void in matches)], axis=1)[:, order]
            precision[scope.name] = _precision(matched, void, num_truths)
            right = matched & ~void
            recall[scope.name] = right.sum(axis=1) / num_truths if num_truths else None
            if scope.name == "all":
                tops = {
                    f"AR{most}": _mean((right & (rank < most)).sum(axis=1) / num_truths if num_truths else None)
                    for most in (1, 10, _VIS_TRACKS)
                }
        every = precision["all"]
        fifty = {
            "AP50": None if every is None else float(every[0]),
            "AP75": None if every is None else float(every[5]),
        }
        ap = {f"AP_{name}": _mean(values) for name, values in precision.items()}
        ar = {f"AR_{name}": _mean(values) for name, values in recall.items()}
        if self.protocol == "tao":
            return {**ap, **ar, **fifty}
        return {"AP": ap.pop("AP_all"), **fifty, **ap, **tops, **{k: v for k, v in ar.items() if k != "AR_all"}}


def average_precision(rows: Iterable[Mapping[str, float | None]]) -> Scores:
    """Mean of each score over the classes that have it; None where none has."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    record = {name: [value for row in rows if (value := row.get(name)) is not None] for name in names}
    return {name: float(np.mean(values)) if values else None for name, values in record.items()}


def _match(
    group: _Group, thresholds: NDArray[np.float64], number_zero: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match predictions to ground truth, best score first, for all M ranges and T thresholds at once.

    Returns:
        (M, T, D) bool each: predictions with a match, and predictions that are ignored.
    """
    shape = (len(group.outside), len(thresholds))
    matched = np.zeros((*shape, len(group.scores)), bool)
    void = np.zeros_like(matched)
    taken = np.zeros((*shape, len(group.crowd)), bool)
    for row, iou, is_zero in zip(group.near.tolist(), group.iou, number_zero.tolist()):
        # Largest IoU first, and among equal ones the last of the file first, which the official loops choose.
        truths = np.flatnonzero(iou)
        truths = truths[np.lexsort((-truths, -iou[truths]))]
        free = (iou[truths] >= thresholds[:, None]) & ~taken[:, :, truths]
        # Ignored ground truth is matched only where no other is left.
        regular = free & ~group.truth_outside[:, None, truths]
        choice = np.where(regular.any(axis=2, keepdims=True), regular, free)
        scope, level = np.nonzero(choice.any(axis=2))
        truth = truths[choice[scope, level].argmax(axis=1)]
        matched[scope, level, row] = True
        void[scope, level, row] = group.truth_outside[scope, truth]
        if not is_zero:
            taken[scope, level, truth] = ~group.crowd[truth]
    void |= ~matched & group.outside[:, None]
    return matched, void


def _precision(matched: NDArray[np.bool_], void: NDArray[np.bool_], num_truths: int) -> NDArray[np.float64] | None:
    """(T,) mean over `RECALLS` of the best precision at that recall or a higher one.

    Args:
        matched, void: (T, D), best score first.
        num_truths: number of ground-truth tracks; None is returned for 0.
    """
    if not num_truths:
        return None
    right = matched & ~void
    num_right = right.sum(axis=1)
    wrong = np.cumsum(~matched & ~void, axis=1)
    level, place = np.nonzero(right)
    # Rank of each right track in its row, from 0.
    number = np.arange(len(level)) - np.repeat(np.cumsum(num_right) - num_right, num_right)
    # Precision only falls between two right tracks, so its maxima are at right tracks.
    best = np.zeros((len(right), int(num_right.max(initial=0)) + 1))
    best[level, number] = (number + 1) / (wrong[level, place] + (number + 1) + np.spacing(1))
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    needed = np.searchsorted(np.arange(1, best.shape[1]) / num_truths, RECALLS)
    averages: NDArray[np.float64] = best[:, needed].mean(axis=1)
    return averages


def _mean(values: NDArray[np.float64] | None) -> float | None:
    return None if values is None else float(values.mean())


def _outside(values: NDArray[np.float64] | NDArray[np.int64], bounds: tuple[float, float]) -> NDArray[np.bool_]:
    """Whether each value is out of bounds; NaN is."""
    return ~((values >= bounds[0]) & (values <= bounds[1]))
