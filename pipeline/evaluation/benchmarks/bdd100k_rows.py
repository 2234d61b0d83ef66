"""Makes the rows, notes and plots of a BDD100K report from counts by class."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from trackmill.pipeline.evaluation.benchmarks.bdd100k_categories import CLASSES, DISTRACTORS
from trackmill.pipeline.evaluation.benchmarks.bdd100k_counts import Compared, Counts
from trackmill.pipeline.evaluation.metrics.clear import ClearCounts
from trackmill.pipeline.evaluation.metrics.teta import average_teta
from trackmill.pipeline.evaluation.readers.scalabel import LabelledVideo
from trackmill.pipeline.evaluation.report.moments import add_timelines, describe_moments, worst_first
from trackmill.pipeline.evaluation.report.report import Moment, Report, Row, Timeline, row

_MOST_MOMENTS = 24


@dataclass(slots=True, kw_only=True)
class Notes:
    """Collects notes for the report over the videos."""

    missing_videos: list[str] = field(default_factory=list)
    missing_frames: int = 0
    overlapping_frames: int = 0
    without_objects: list[str] = field(default_factory=list)
    without_predictions: list[str] = field(default_factory=list)
    look_alikes: int = 0

    def look_at(self, truth: LabelledVideo, predictions: LabelledVideo) -> None:
        """Record what the notes say about one video."""
        if truth.crowd.all():
            self.without_objects.append(truth.name)
        elif len(predictions.tracks) == 0 and truth.name not in self.missing_videos:
            self.without_predictions.append(truth.name)
        self.look_alikes += int((np.isin(truth.tracks.labels, list(DISTRACTORS)) & ~truth.crowd).sum())

    def add(self, other: Notes) -> None:
        """Those of further videos."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def lines(self, by_class: Mapping[int, Counts], published: bool, families: Collection[str]) -> list[str]:
        """The notes, one sentence each."""
        lines = []
        if all(counts.objects == 0 for counts in by_class.values()):
            lines.append("no objects in the ground truth: nothing can be scored")
        elif self.without_objects:
            lines.append(f"no objects in the ground truth of {_listed(self.without_objects)}")
        if self.missing_videos:
            lines.append(f"no results for {_listed(self.missing_videos)}: all objects there are missed")
        if self.without_predictions:
            lines.append(f"no predictions in {_listed(self.without_predictions)}: all objects there are missed")
        if self.missing_frames:
            lines.append(
                f"frames without an entry in the results: {self.missing_frames:,}; all objects there are missed"
            )
        if self.overlapping_frames:
            lines.append(
                f"frames with overlapping predicted masks: {self.overlapping_frames:,}; segmentation tracking allows "
                "none, and all predictions of such a frame are removed, as in the official tool"
            )
        if self.look_alikes and published and {"hota", "teta"} & set(families):
            lines.append(
                f"{self.look_alikes:,} objects called other person, other vehicle or trailer count as real in HOTA "
                "and TETA, as in the published numbers; the rule 'corrected' ignores them"
            )
        empty = [label for label, number in CLASSES.items() if by_class[number].clear.gt == 0]
        if empty and len(empty) < len(CLASSES) and "clear" in families:
            lines.append(
                f"no ground truth for {', '.join(empty)}: MOTA is undefined there and counts as 0 in mMOTA, as do "
                "MOTP, IDF1 and HOTA in their means; TETA's means leave out such classes"
            )
        return lines


def totals(by_class: Mapping[int, Counts], families: Collection[str]) -> Row:
    """Means over the classes, and the scores of all classes pooled; without ground truth all ratios are None."""
    everything = pooled(by_class.values())
    fractions: dict[str, float] = {}
    if "teta" in families:
        means = average_teta(counts.teta for counts in by_class.values()) or {}
        fractions |= {f"m{key}": means.get(key, math.nan) for key in ("TETA", "LocA", "AssocA", "ClsA")}
    if "hota" in families:
        rows = [counts.hota.scores() for counts in by_class.values()]
        fractions |= {f"m{key}": float(np.mean([scores[key] for scores in rows])) for key in ("HOTA", "DetA", "AssA")}
    if "clear" in families:
        fractions |= _means_of_finite([counts.clear.clear_scores() for counts in by_class.values()])
    if "identity" in families:
        scores = _means_of_finite([counts.clear.identity_scores() for counts in by_class.values()])
        fractions["mIDF1"] = scores["mIDF1"]
    record = row(fractions) | scored_row(everything, families)
    if everything.objects == 0 and everything.clear.gt == 0:
        record |= {key: None for key, value in record.items() if isinstance(value, float)}
    return record


def _means_of_finite(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means over the classes; undefined scores count as 0."""
    return {
        f"m{key}": float(np.mean([scores[key] if math.isfinite(scores[key]) else 0.0 for scores in rows]))
        for key in rows[0]
    }


def scored_row(counts: Counts, families: Collection[str]) -> Row:
    """Percent and counts of one class, or of several pooled."""
    fractions: dict[str, float] = {}
    if "teta" in families:
        fractions |= counts.teta.scores()
    if "hota" in families:
        scores = counts.hota.scores()
        if "teta" in families:
            scores["HOTA.LocA"] = scores.pop("LocA")
        fractions |= scores
    if "clear" in families:
        fractions |= counts.clear.clear_scores()
    if "identity" in families:
        fractions |= counts.clear.identity_scores()
    whole = counts.clear.counts() if "clear" in families else {}
    if "hota" in families:
        whole |= {"GT": counts.objects, "GT_IDs": counts.gt_ids, "Dets": counts.predictions, "IDs": counts.ids}
    return row(fractions, whole)


def pooled(counts: Iterable[Counts]) -> Counts:
    """Pooled counts of several classes."""
    return sum(counts, start=Counts.none())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plots:
    """Curves over the thresholds, mistakes over time, and the worst switches of one video; see `Report`."""

    curves: dict[str, list[float]] | None = None
    timeline: Timeline | None = None
    moments: list[Moment] = field(default_factory=list)


def plots_of(
    truth: LabelledVideo, counts: Mapping[int, Counts], compared: Mapping[int, Compared], families: Collection[str]
) -> Plots:
    """The plots of one video."""
    curves = None
    if "hota" in families:
        found = pooled(counts.values()).hota.curves()
        curves = {key: (100 * found[key]).tolist() for key in ("HOTA", "DetA", "AssA")}
    if "clear" not in families or not compared:
        return Plots(curves=curves)
    names = {number: label for label, number in CLASSES.items()}
    timelines: list[Timeline] = []
    moments: list[Moment] = []
    for number, rows in compared.items():
        matches = ClearCounts(matches=counts[number].clear.matches)
        timeline, worst = describe_moments(
            truth.name, rows.gt, rows.predictions, rows.overlaps, matches, names[number], truth.frame_names
        )
        timelines.append(timeline)
        moments += worst
    return Plots(curves=curves, timeline=add_timelines(timelines), moments=worst_first(moments)[:_MOST_MOMENTS])


def add_plots(report: Report, name: str, plots: Plots) -> None:
    """Add the plots of one video to the report."""
    if plots.curves is not None:
        report.curves[name] = plots.curves
    if plots.timeline is not None:
        report.timelines[name] = plots.timeline
        report.moments = worst_first(report.moments + plots.moments)[:_MOST_MOMENTS]


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return f"video {names[0]}"
    return f"{len(names):,} videos: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
