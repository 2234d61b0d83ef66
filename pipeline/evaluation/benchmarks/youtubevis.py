"""YouTube-VIS, OVIS and UVO (and SA-Co/VEval, which has their format): Track mAP of masks, HOTA and TETA.

AP and AR follow the YouTube-VIS and OVIS APIs (see `track_map.py`); UVO merges all categories into one. HOTA follows
TrackEval 1.3.0 (`datasets/youtube_vis.py`): each class of each video is compared separately, and a total pools their
counts. For SA-Co/VEval that gives the published `all_phrase` numbers, in which every pair of video and phrase counts
as a video. TETA is the mean over the classes of the ground truth, all of whose objects are annotated (`exhaustive`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from trackmill.pipeline.evaluation.box_forms import likely_form, notes_on_forms
from trackmill.pipeline.evaluation.metrics.teta import TetaCounts, average_teta, teta
from trackmill.pipeline.evaluation.metrics.track_map import Scores, TrackMap, average_precision
from trackmill.pipeline.evaluation.overlaps import Iou, Overlaps, find_overlaps
from trackmill.pipeline.evaluation.processes import results_in_order
from trackmill.pipeline.evaluation.readers.mot_layout import choose_sequences
from trackmill.pipeline.evaluation.readers.youtube_vis import RawTrack, VisTruth, VisVideo, read_results, read_truth
from trackmill.pipeline.evaluation.readers.youtube_vis_rows import read_tracks
from trackmill.pipeline.evaluation.report.moments import add_timelines, describe_moments, worst_first
from trackmill.pipeline.evaluation.report.report import Moment, Report, Row, Timeline, row
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.scoring import TrackCounts, count, without_matches
from trackmill.pipeline.evaluation.tracks import Video

FAMILIES = ("trackmap", "hota", "teta")
"""Families of metrics that are scored by default; `clear` and `identity` can be added."""

PHRASE_SCORE = 0.5
"""SA-Co/VEval: HOTA takes predictions with a higher score, TETA those with at least this one."""

_MOST_MOMENTS = 24


@dataclass(slots=True, kw_only=True)
class _Tally:
    """Counts of one or more videos, by class."""

    counts: dict[int, TrackCounts] = field(default_factory=dict)
    teta: dict[int, TetaCounts] = field(default_factory=dict)

    def add(self, other: _Tally) -> None:
        """Add the counts of another video."""
        for label, counts in other.counts.items():
            self.counts[label] = self.counts[label] + counts if label in self.counts else counts
        for label, class_counts in other.teta.items():
            self.teta[label] = self.teta.get(label, TetaCounts.none()) + class_counts

    def of(self, label: int) -> _Tally:
        """The counts of one class."""
        return _Tally(
            counts={label: self.counts[label]} if label in self.counts else {},
            teta={label: self.teta[label]} if label in self.teta else {},
        )


OPTIONS = frozenset({"iou", "metrics", "sequences"})
"""Options that apply; see `trackmill.pipeline.evaluation.request.Options`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """What holds for all videos; `labels` are the classes with ground truth, `categories` the names of all."""

    iou: Iou
    families: Collection[str]
    labels: list[int]
    categories: Mapping[int, str]
    has_phrases: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entries:
    """One video and its tracks as the files hold them."""

    about: VisVideo
    gt: list[RawTrack]
    predictions: list[RawTrack]


@dataclass(slots=True, kw_only=True)
class _VideoScores:
    """What one video adds to a report; see `Report` for timeline and moments, `box_forms.py` for form."""

    name: str
    tally: _Tally
    precision: TrackMap
    form: str
    timeline: Timeline | None
    moments: list[Moment]


def evaluate(
    name: str,
    gt: str,
    results: str,
    options: Options,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = 1,
) -> Report:
    """Evaluate `youtubevis`, `ovis` or `uvo`.

    Args:
        name: the benchmark.
        gt, results: JSON in YouTube-VIS form (gzip allowed), or a folder of such files.
        options: `iou` (masks by default), `sequences` and `metrics` apply.
        progress: called with videos done and videos in all.
        workers: processes, see `results_in_order`; files are read in this one.

    Raises:
        BadTracks: a file that cannot be evaluated.
        OSError: a file that cannot be read.
    """
    iou: Iou = options.iou or "mask"
    families = options.metrics or FAMILIES
    one_class = name == "uvo"
    truth = read_truth(gt, one_class=one_class)
    results_of = read_results(results, truth, one_class=one_class)
    wanted = set(choose_sequences([video.name for video in truth.videos], options.sequences, gt))
    videos = [video for video in truth.videos if video.name in wanted]
    report = Report(benchmark=name, iou=iou, metrics={}, settings=_settings(families, truth, one_class))
    report.notes = _notes(truth, results_of, videos)
    labels = _labels_with_truth(truth, videos)
    rules = _Rules(
        iou=iou, families=families, labels=labels, categories=truth.categories, has_phrases=truth.has_phrases
    )
    entries = [
        _Entries(about=about, gt=truth.entries.pop(about.id, []), predictions=results_of.pop(about.id, []))
        for about in videos
    ]
    precision = TrackMap("youtube-vis", iou)
    by_video: dict[str, _Tally] = {}
    forms: dict[str, str] = {}
    names = [about.name for about in videos]
    for done, video in enumerate(results_in_order(partial(_score, rules=rules), entries, names, workers), start=1):
        precision.extend(video.precision)
        by_video[video.name] = video.tally
        forms[video.name] = video.form
        _add_plots(report, video, families)
        if progress is not None:
            progress(done, len(videos))
    report.notes += notes_on_forms(forms)
    _fill(report, truth, labels, precision, by_video, families)
    return report


def _labels_with_truth(truth: VisTruth, videos: list[VisVideo]) -> list[int]:
    """Classes of the ground truth, in the order of the file."""
    present = {entry.label for video in videos for entry in truth.entries.get(video.id, [])}
    return [label for label in truth.categories if label in present]


def _score(entries: _Entries, rules: _Rules) -> _VideoScores:
    """Read and score one video."""
    about = entries.about
    gt_rows, gt_tracks = read_tracks(entries.gt, about, rules.iou, is_truth=True)
    rows, tracks = read_tracks(entries.predictions, about, rules.iou, is_truth=False)
    video = Video(
        name=about.name, num_frames=about.num_frames, gt=gt_rows, predictions=rows, frame_names=about.frame_names
    )
    overlaps = find_overlaps(gt_rows, rows, about.num_frames, rules.iou)
    precision = TrackMap("youtube-vis", rules.iou)
    if "trackmap" in rules.families:
        precision.add(video, gt_tracks=gt_tracks, predicted_tracks=tracks, overlaps=overlaps)
    counts, timeline, moments = _count_classes(video, overlaps, rules)
    return _VideoScores(
        name=about.name,
        tally=_Tally(counts=counts, teta=_count_teta(video, overlaps, rules) if "teta" in rules.families else {}),
        precision=precision,
        form=likely_form(gt_rows, rows, overlaps) if rules.iou == "box" else "",
        timeline=timeline,
        moments=moments,
    )


def _count_classes(
    video: Video, overlaps: Overlaps, rules: _Rules
) -> tuple[dict[int, TrackCounts], Timeline | None, list[Moment]]:
    """HOTA, CLEAR and Identity of each class of one video, its mistakes over time, and its worst moments."""
    gt, predictions = video.gt, video.predictions
    sure = predictions.scores > PHRASE_SCORE if rules.has_phrases else np.ones(len(predictions), bool)
    result: dict[int, TrackCounts] = {}
    timelines: list[Timeline] = []
    moments: list[Moment] = []
    for label in np.union1d(gt.labels, predictions.labels[sure]).tolist():
        keep_gt, keep = gt.labels == label, sure & (predictions.labels == label)
        compared = overlaps.of_class(keep_gt, keep)
        counts = count(compared, rules.families)
        result[label] = without_matches(counts)
        if counts.clear is not None:
            rows = gt.select(keep_gt), predictions.select(keep)
            title = rules.categories[label]
            timeline, worst = describe_moments(video.name, *rows, compared, counts.clear, title, video.frame_names)
            timelines.append(timeline)
            moments += worst
    return result, add_timelines(timelines) if timelines else None, worst_first(moments)[:_MOST_MOMENTS]


def _add_plots(report: Report, video: _VideoScores, families: Collection[str]) -> None:
    """Add curves, timeline and moments of one video."""
    if video.timeline is not None:
        report.timelines[video.name] = video.timeline
        report.moments = worst_first(report.moments + video.moments)[:_MOST_MOMENTS]
    if "hota" in families:
        pooled = sum(video.tally.counts.values(), start=TrackCounts.none(families)).hota
        assert pooled is not None
        curves = pooled.curves()
        report.curves[video.name] = {key: (100 * curves[key]).tolist() for key in ("HOTA", "DetA", "AssA")}


def _count_teta(video: Video, overlaps: Overlaps, rules: _Rules) -> dict[int, TetaCounts]:
    """TETA of each class; predictions in frames without ground truth do not count."""
    annotated = np.zeros(video.num_frames, bool)
    annotated[video.gt.frames] = True
    keep = annotated[video.predictions.frames]
    if rules.has_phrases:
        keep &= video.predictions.scores >= PHRASE_SCORE
    kept = replace(video, predictions=video.predictions.select(keep))
    return teta(kept, overlaps.select(np.ones(len(video.gt), bool), keep), rules.labels, exhaustive=True)


def _fill(
    report: Report,
    truth: VisTruth,
    labels: list[int],
    precision: TrackMap,
    by_video: Mapping[str, _Tally],
    families: Collection[str],
) -> None:
    """Fill in totals and rows."""
    by_class = precision.scores()
    total = _Tally()
    for tally in by_video.values():
        total.add(tally)
    names = precision.names if "trackmap" in families else []
    levels = [name for name in names if name.endswith(("_so", "_mo", "_ho"))]
    if all(scores[name] is None for scores in by_class.values() for name in levels):
        names = [name for name in names if name not in levels]

    def record(scores: Collection[Scores], tally: _Tally) -> Row:
        averages = average_precision(scores)
        return _row({name: averages.get(name) for name in names}, tally, families)

    report.metrics = record(by_class.values(), total)
    for video, tally in by_video.items():
        report.sequences[video] = record(precision.scores(video).values(), tally)
    for label, title in truth.categories.items():
        if label in by_class or label in total.counts or label in labels:
            report.classes[title] = record([by_class[label]] if label in by_class else [], total.of(label))


def _row(precision: Scores, tally: _Tally, families: Collection[str]) -> Row:
    record = row({name: math.nan if value is None else value for name, value in precision.items()})
    if {"hota", "clear", "identity"} & set(families):
        counted = sum(tally.counts.values(), start=TrackCounts.none(families)).row()
        if "teta" in families and "LocA" in counted:
            counted = {"HOTA.LocA" if name == "LocA" else name: value for name, value in counted.items()}
        record |= counted
    if "teta" in families:
        scores = average_teta(tally.teta.values())
        record |= row(scores or dict.fromkeys(TetaCounts.none().scores(), math.nan))
    return record


def _settings(families: Collection[str], truth: VisTruth, one_class: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "metrics": list(families),
        "classes": "all as one" if one_class else "as annotated",
        "class_vote": False,
    }
    if "trackmap" in families:
        record["max_tracks"] = "100 best of a class and video"
        record["area_ranges"] = "mean area of a track below 128^2 (s), up to 256^2 (m), above (l)"
    if {"hota", "clear", "identity"} & set(families):
        record["totals"] = (
            "HOTA, CLEAR and Identity pool the counts of all classes and videos; AP and TETA are class means"
        )
    if "teta" in families:
        record["exhaustive"] = True
    if truth.has_phrases:
        record["score_threshold"] = PHRASE_SCORE
    return record


def _notes(truth: VisTruth, results_of: Mapping[int, list[RawTrack]], videos: list[VisVideo]) -> list[str]:
    notes = []
    with_truth = {entry.label for video in videos for entry in truth.entries.get(video.id, [])}
    guessed = {entry.label for video in videos for entry in results_of.get(video.id, [])}
    if not with_truth:
        notes.append("no objects in the ground truth: nothing can be scored")
    if not guessed:
        notes.append("no predictions: every object is missed")
    for what, where in (("objects in the ground truth", truth.entries), ("predictions", results_of)):
        without = [video.name for video in videos if not where.get(video.id)]
        if without and len(without) < len(videos):
            listed = ", ".join(without[:8]) + (", ..." if len(without) > 8 else "")
            notes.append(f"no {what} in {len(without):,} of {len(videos):,} videos: {listed}")
    extra = [truth.categories[label] for label in sorted(guessed - with_truth)]
    if extra and with_truth:
        listed = ", ".join(extra[:8]) + (", ..." if len(extra) > 8 else "")
        notes.append(f"predicted, but without ground truth, so only HOTA, CLEAR and Identity count it: {listed}")
    if truth.has_phrases:
        notes.append(
            f"ground truth in SA-Co/VEval form: HOTA and TETA leave out predictions scored below {PHRASE_SCORE}"
        )
    return notes
