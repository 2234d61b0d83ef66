"""TAO, open-vocabulary TAO and OVT-B: TETA of many classes, Track mAP, and HOTA, CLEAR and Identity on request.

TETA is the official one (SysCV/tet): predictions on images without ground truth are dropped, classes with ground truth
are averaged. Track mAP and the others follow TrackEval 1.3.0 on TAO.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from trackmill.pipeline.evaluation.benchmarks.tao_rules import counted_predictions, tracks_of_file, where_annotated
from trackmill.pipeline.evaluation.box_forms import likely_form, notes_on_forms
from trackmill.pipeline.evaluation.metrics.teta import TetaCounts, teta
from trackmill.pipeline.evaluation.metrics.track_map import TrackMap
from trackmill.pipeline.evaluation.overlaps import Iou, Overlaps, find_overlaps
from trackmill.pipeline.evaluation.processes import results_in_order
from trackmill.pipeline.evaluation.readers.base_classes import split_classes
from trackmill.pipeline.evaluation.readers.coco_video import CocoVideo, CocoVideos, read_coco_video
from trackmill.pipeline.evaluation.report.moments import add_timelines, describe_moments, worst_first
from trackmill.pipeline.evaluation.report.report import Moment, Report, Row, Timeline, row
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.scoring import FAMILIES as TRACK_FAMILIES
from trackmill.pipeline.evaluation.scoring import TrackCounts, count, without_matches
from trackmill.pipeline.evaluation.tracks import Video
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact

DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "tao": ("teta", "trackmap"),
    "tao-ov": ("teta", "trackmap"),
    "ovtb": ("teta",),
}
"""Families of metrics that each benchmark reports by default."""

TAO_DETECTIONS = 300
"""Largest number of predictions of an image in TAO's Track mAP; TETA takes all."""

_PRECISION = {"AP_all": "TrackAP", "AP50": "TrackAP50", "AP75": "TrackAP75", "AR_all": "TrackAR"}
_PRINTED = ("TETA", "LocA", "AssocA", "ClsA")
_MOST_MOMENTS = 24


@dataclass(slots=True, kw_only=True)
class _Tally:
    """Counts by class, of one video or of all so far."""

    teta: dict[int, TetaCounts] = field(default_factory=dict)
    tracks: dict[int, TrackCounts] = field(default_factory=dict)

    def add(self, other: _Tally) -> None:
        for label, counts in other.teta.items():
            self.teta[label] = self.teta.get(label, TetaCounts.none()) + counts
        for label, tracked in other.tracks.items():
            self.tracks[label] = self.tracks[label] + tracked if label in self.tracks else tracked


OPTIONS = frozenset({"base_classes", "class_vote", "iou", "max_detections", "metrics", "sequences"})
"""Options that apply; see `trackmill.pipeline.evaluation.request.Options`."""


def evaluate(
    name: str,
    gt: str,
    results: str,
    options: Options,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = 1,
) -> Report:
    """Evaluate `tao`, `tao-ov` or `ovtb`.

    Args:
        name: the benchmark.
        gt: TAO's JSON (gzip allowed), or a folder with only that file.
        results: a flat list of boxes as JSON, or a folder of such files.
        options: `iou` (boxes by default), `sequences`, `metrics`, `class_vote`, `max_detections` and, for the
            open-vocabulary benchmarks, `base_classes` apply.
        progress: called with videos done and videos in all.
        workers: processes, see `results_in_order`; files are read in this one.

    Raises:
        BadTracks: a file that cannot be evaluated.
        OSError: a file that cannot be read.
    """
    iou: Iou = options.iou or "box"
    families = options.metrics or DEFAULTS[name]
    is_open = name != "tao"
    if options.base_classes is not None and not is_open:
        raise BadTracks(f"{name} has no base and novel classes; leave out --base-classes, or evaluate tao-ov")
    data = read_coco_video(
        gt,
        results,
        iou=iou,
        sequences=options.sequences,
        max_detections=options.max_detections,
        class_vote=bool(options.class_vote),
    )
    split = split_classes(data.categories, data.labels, options.base_classes, redact(gt)) if is_open else None
    report = Report(benchmark=name, iou=iou, metrics={}, settings=_settings(families, options))
    report.notes = [*data.notes, *(split.notes if split else ()), *_notes(data, families, options)]
    names = _class_names(data)
    forms: dict[str, str] = {}
    total, precision = _Tally(), TrackMap("tao", iou) if "trackmap" in families else None
    score = partial(_score, labels=data.labels, names=names, families=families, iou=iou)
    videos = [about.video.name for about in data.videos]
    for done, video in enumerate(results_in_order(score, data.videos, videos, workers), start=1):
        forms[video.name] = video.form
        if precision is not None and video.precision is not None:
            precision.extend(video.precision)
        total.add(video.tally)
        _add(report, video, families)
        if progress is not None:
            progress(done, len(data.videos))
    report.notes += notes_on_forms(forms)

    blank = _blank(families)
    report.classes = _class_rows(data, names, total, precision, families)
    report.metrics = _average(report.classes.values(), blank)
    if split is not None:
        report.settings["base_novel"] = split.rule
        base, novel = ([label for label in data.labels if label in part] for part in (split.base, split.novel))
        report.base = _average([report.classes[names[label]] for label in base], blank)
        report.novel = _average([report.classes[names[label]] for label in novel], blank)
        if "teta" in families:
            for title, part in (("base", base), ("novel", novel)):
                report.notes.append(_as_printed(title, [report.classes[names[label]] for label in part]))
    return report


@dataclass(slots=True, kw_only=True)
class _VideoScores:
    """What one video adds to a report; see `Report` for curves, timeline and moments, `box_forms.py` for form."""

    name: str
    tally: _Tally
    precision: TrackMap | None
    form: str
    timeline: Timeline | None
    moments: list[Moment]


def _score(
    about: CocoVideo, *, labels: Collection[int], names: Mapping[int, str], families: Collection[str], iou: Iou
) -> _VideoScores:
    """Score one video."""
    overlaps = find_overlaps(about.video.gt, about.video.predictions, about.video.num_frames, iou)
    precision = None
    if "trackmap" in families:
        precision = TrackMap("tao", iou)
        precision.add(
            about.video,
            negative_labels=about.negative,
            not_exhaustive_labels=about.not_exhaustive,
            gt_tracks=tracks_of_file(about.video.gt, about.gt_places, iou),
            predicted_tracks=tracks_of_file(about.video.predictions, about.prediction_places, iou),
            overlaps=overlaps,
        )
    tally, timeline, moments = _count(about, overlaps, labels, names, families)
    return _VideoScores(
        name=about.video.name,
        tally=tally,
        precision=precision,
        form=likely_form(about.video.gt, about.video.predictions, overlaps) if iou == "box" else "",
        timeline=timeline,
        moments=moments,
    )


def _count(
    about: CocoVideo,
    overlaps: Overlaps,
    labels: Collection[int],
    names: Mapping[int, str],
    families: Collection[str],
) -> tuple[_Tally, Timeline | None, list[Moment]]:
    """Counts by class, and for plots the mistakes of all classes over time and the worst moments."""
    video, overlaps = where_annotated(about.video, overlaps)
    tally = _Tally()
    if "teta" in families:
        counts_of = teta(video, overlaps, list(labels))
        tally.teta = {label: counts for label, counts in counts_of.items() if counts is not TetaCounts.none()}
    if not set(TRACK_FAMILIES) & set(families):
        return tally, None, []
    timelines: list[Timeline] = []
    moments: list[Moment] = []
    present, predicted_labels = np.unique(video.gt.labels), np.unique(video.predictions.labels)
    absent = np.intersect1d(predicted_labels, list(about.negative))
    for label in np.intersect1d(np.union1d(present, absent), list(labels)).astype(np.int64).tolist():
        of_class = video.gt.labels == label
        keep = counted_predictions(
            overlaps,
            of_class,
            video.predictions.labels == label,
            is_negative=label in about.negative,
            is_exhaustive=label not in about.not_exhaustive,
        )
        compared = overlaps.of_class(of_class, keep)
        counts = count(compared, families)
        tally.tracks[label] = without_matches(counts)
        if counts.clear is not None:
            rows = video.gt.select(of_class), video.predictions.select(keep)
            timeline, of_label = describe_moments(
                video.name, *rows, compared, counts.clear, names[label], frame_names=video.frame_names
            )
            timelines.append(timeline)
            moments = worst_first(moments + of_label)[:_MOST_MOMENTS]
    return tally, add_timelines(timelines) if timelines else None, moments


def _add(report: Report, video: _VideoScores, families: Collection[str]) -> None:
    """Add the row and the plots of one video."""
    report.sequences[video.name] = _mean_row(video.tally, families)
    report.moments = worst_first(report.moments + video.moments)[:_MOST_MOMENTS]
    if "hota" in families:
        pooled = sum(video.tally.tracks.values(), start=TrackCounts.none(families)).hota
        assert pooled is not None
        curves = pooled.curves()
        report.curves[video.name] = {key: (100 * curves[key]).tolist() for key in ("HOTA", "DetA", "AssA")}
    if video.timeline is not None:
        report.timelines[video.name] = video.timeline


def _class_rows(
    data: CocoVideos,
    names: Mapping[int, str],
    total: _Tally,
    precision: TrackMap | None,
    families: Collection[str],
) -> dict[str, Row]:
    precision_scores = precision.scores() if precision is not None else {}
    rows = {}
    for label in data.labels:
        record = row(total.teta.get(label, TetaCounts.none()).scores()) if "teta" in families else {}
        if precision is not None:
            scores = precision_scores.get(label, {})
            record |= row({name: _number(scores.get(key)) for key, name in _PRECISION.items()})
        if set(TRACK_FAMILIES) & set(families):
            record |= _track_row(total.tracks[label], families)
        rows[names[label]] = record
    return rows


def _mean_row(tally: _Tally, families: Collection[str]) -> Row:
    """The row of one video: the mean over its classes, without Track mAP, which is defined over all videos."""
    record = [row(counts.scores()) for counts in tally.teta.values() if not counts.is_empty]
    tracked = [_track_row(counts, families) for counts in tally.tracks.values()]
    blank = _blank([family for family in families if family != "trackmap"])
    return _average([*record, *tracked], blank)


def _track_row(counts: TrackCounts, families: Collection[str]) -> Row:
    record = counts.row()
    if "teta" in families:
        record = {"HOTA.LocA" if name == "LocA" else name: value for name, value in record.items()}
    return record


def _blank(families: Collection[str]) -> Row:
    """All names that the families report, with None for a ratio and 0 for a count."""
    record: Row = {}
    if "teta" in families:
        record |= dict.fromkeys(TetaCounts.none().scores())
    if "trackmap" in families:
        record |= dict.fromkeys(_PRECISION.values())
    if set(TRACK_FAMILIES) & set(families):
        record |= _track_row(TrackCounts.none(families), families)
    return record


def _average(rows: Iterable[Row], blank: Row) -> Row:
    """Ratios: mean over the rows that have them; counts: sum."""
    rows = list(rows)
    record: Row = {}
    for name, empty in blank.items():
        values = [value for one in rows if (value := one.get(name)) is not None]
        if empty is not None:
            record[name] = int(sum(values))
        else:
            record[name] = float(np.mean(values)) if values else None
    return record


def _as_printed(title: str, rows: list[Row]) -> str:
    """Base or novel scores as MASA's and OVTrack's scripts print them.

    They average class rows that the official tool has already rounded to five significant digits.
    """
    if not rows:
        return f"no {title} classes with ground truth"
    means = {name: np.mean([float(f"{one[name]:.5g}") for one in rows]) for name in _PRINTED}
    record = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    return f"{title} classes: {len(rows)}; as the official script prints them, from class rows of five digits: {record}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _class_names(data: CocoVideos) -> dict[int, str]:
    """Names of the evaluated categories; a repeated name gets its id appended."""
    names: dict[int, str] = {}
    for category in data.categories:
        if category.id in data.labels:
            taken = category.name in names.values()
            names[category.id] = f"{category.name} ({category.id})" if taken else category.name
    return names


def _settings(families: Collection[str], options: Options) -> dict[str, Any]:
    voted = bool(options.class_vote)
    record: dict[str, Any] = {
        "metrics": list(families),
        "class_vote": voted,
        "max_detections": options.max_detections or "all",
        "averages": "mean over the classes with ground truth; counts are summed",
    }
    if voted:
        record["class_vote_rule"] = "most frequent class of a track's boxes; of equally frequent ones the smallest id"
    if "teta" in families:
        record["exhaustive"] = False
    return record


def _notes(data: CocoVideos, families: Collection[str], options: Options) -> list[str]:
    notes = []
    videos = [about.video for about in data.videos]
    if not data.labels:
        notes.append("no classes with ground truth: nothing can be scored")
    empty = [video.name for video in videos if not len(video.gt)]
    missed = [video.name for video in videos if len(video.gt) and not len(video.predictions)]
    if empty and len(empty) < len(videos):
        notes.append(f"no objects in the ground truth of {_of_videos(empty, videos)}")
    if missed and len(missed) < len(videos):
        notes.append(f"no predictions in {_of_videos(missed, videos)}; all of their objects are missed")
    outside = sum(int((~np.isin(video.predictions.frames, video.gt.frames)).sum()) for video in videos)
    if outside:
        but = " (Track mAP counts them)" if "trackmap" in families else ""
        notes.append(f"{outside:,} predictions on images without ground truth were left out, as the tools do{but}")
    if data.most_predictions > TAO_DETECTIONS and not options.max_detections and set(families) - {"teta"}:
        notes.append(
            f"an image has {data.most_predictions:,} predictions and all were taken; TAO's Track mAP takes "
            f"{TAO_DETECTIONS} (--max-detections {TAO_DETECTIONS})"
        )
    return notes


def _of_videos(names: Sequence[str], videos: Sequence[Video]) -> str:
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{len(names):,} of {len(videos):,} videos: {listed}"
