"""Counts of one sequence of MOTChallenge: of each class, and of all together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.assignment import best_pairs
from trackmill.pipeline.evaluation.benchmarks.mot_classes import NO_CLASS, ScoredClasses
from trackmill.pipeline.evaluation.box_forms import likely_form
from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.overlaps import Iou, Overlaps, find_overlaps
from trackmill.pipeline.evaluation.report.moments import add_timelines, describe_moments, worst_first
from trackmill.pipeline.evaluation.report.report import ANY_CLASS, Moment, Timeline
from trackmill.pipeline.evaluation.scoring import TrackCounts, count, without_matches
from trackmill.pipeline.evaluation.tracks import Tracks, Video


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceScores:
    """What one sequence adds to a report.

    Args:
        name: of the sequence.
        classes: counts by name of the class; with several also those of `ANY_CLASS`.
        total: all classes together.
        timeline, moments: for the plots; None and none without CLEAR.
        notes: for the reader, without the sequence's name.
        form: what the predicted boxes look like, see `box_forms.py`; empty where nothing is wrong with them.
        unscored: (N,) classes of the ground truth's rows, where none of N > 0 is scored; otherwise empty.
    """

    name: str
    classes: dict[str, TrackCounts]
    total: TrackCounts
    timeline: Timeline | None = None
    moments: list[Moment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    form: str = ""
    unscored: NDArray[np.int64]


def score(
    video: Video, classes: ScoredClasses, families: Collection[str], iou: Iou, num_frames: int, notes: list[str]
) -> SequenceScores:
    """Score one sequence.

    One class is compared with all that is scored, as the benchmark does. Several are compared each for itself, and the
    total is the sum of their counts, so that a car called a pedestrian is missed there and false here; where the
    results name no classes, the total compares boxes whatever their class.

    Args:
        video: ground truth and predictions; their labels are classes.
        classes: what is scored.
        families: of metrics.
        iou: compare boxes or masks.
        num_frames: frames that count.
        notes: for the report.
    """
    overlaps = find_overlaps(video.gt, video.predictions, video.num_frames, iou)
    scored, labels = ~video.gt.ignored, video.predictions.labels
    everything = np.ones(len(labels), bool)
    is_split = len(classes.names) > 1
    together = _Compared.of(video, overlaps, scored, everything, classes, families)
    parts = {"": together}
    if is_split:
        parts = {
            name: _Compared.of(
                video,
                overlaps,
                scored & (video.gt.labels == number),
                (labels == number) | (labels == NO_CLASS),
                classes,
                families,
            )
            for number, name in classes.names.items()
        }
    counts = {name: replace(part.counts, frames=num_frames) for name, part in parts.items()}
    total = replace(together.counts, frames=num_frames)
    by_class = {next(iter(classes.names.values())): total}
    drawn = {next(iter(classes.names.values())): together}
    if is_split:
        by_class = counts | {ANY_CLASS: total}
        if NO_CLASS in labels:
            drawn = {ANY_CLASS: together}
        else:
            total = replace(sum(counts.values(), start=TrackCounts.none(families)), frames=num_frames)
            drawn = parts
    timeline, moments = _describe(video, drawn)
    return SequenceScores(
        name=video.name,
        classes={name: without_matches(each) for name, each in by_class.items()},
        total=without_matches(total),
        timeline=timeline,
        moments=moments,
        notes=notes,
        form=likely_form(video.gt, video.predictions, overlaps) if iou == "box" else "",
        unscored=video.gt.labels if not scored.any() else np.zeros(0, np.int64),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Compared:
    """What is left after the removal of distractors, and its counts."""

    overlaps: Overlaps
    gt: Tracks
    predictions: Tracks
    counts: TrackCounts

    @classmethod
    def of(
        cls,
        video: Video,
        overlaps: Overlaps,
        keep_gt: NDArray[np.bool_],
        keep_pred: NDArray[np.bool_],
        classes: ScoredClasses,
        families: Collection[str],
    ) -> _Compared:
        """Predictions of `keep_pred` against ground truth of `keep_gt`.

        Distractors are looked for among all of the ground truth, and take no part in the comparison.
        """
        if classes.distractors:
            keep_pred = keep_pred & ~_on_distractors(video, overlaps, keep_pred, classes.distractors)
        left = overlaps.select(keep_gt, keep_pred)
        return cls(
            overlaps=left,
            gt=video.gt.select(keep_gt),
            predictions=video.predictions.select(keep_pred),
            counts=count(left, families),
        )


def _on_distractors(
    video: Video, overlaps: Overlaps, keep_pred: NDArray[np.bool_], distractors: Collection[int]
) -> NDArray[np.bool_]:
    """(P,) predictions that match a distractor when those of `keep_pred` are matched with all of the ground truth."""
    compared = overlaps
    if not keep_pred.all():
        compared = overlaps.select(np.ones(overlaps.num_gt, bool), keep_pred)
    matched = best_pairs(compared, np.where(compared.pair_iou >= 0.5 - EPS, compared.pair_iou, 0))
    is_distractor = np.isin(video.gt.labels[compared.pair_gt[matched]], list(distractors))
    found = np.zeros(len(keep_pred), bool)
    found[np.flatnonzero(keep_pred)[compared.pair_pred[matched[is_distractor]]]] = True
    return found


def _describe(video: Video, parts: dict[str, _Compared]) -> tuple[Timeline | None, list[Moment]]:
    timelines, moments = [], []
    for name, part in parts.items():
        if part.counts.clear is None:
            return None, []
        timeline, of_class = describe_moments(
            video.name, part.gt, part.predictions, part.overlaps, part.counts.clear, name, video.frame_names
        )
        timelines.append(timeline)
        moments += of_class
    return add_timelines(timelines), worst_first(moments)
