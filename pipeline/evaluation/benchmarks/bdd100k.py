"""BDD100K multi-object tracking (`bdd100k-mot`) and segmentation tracking (`bdd100k-mots`), from Scalabel JSON.

Numbers are those of the Scalabel toolkit (branch scalabel-evalAPI, commit 9a48ee4) as the TETA repository's BDD100K
script calls it: CLEAR and identity by motmetrics 1.4.0, HOTA by TrackEval, TETA by SysCV/tet. `metrics` holds the means
over the 8 classes (names with m) and the scores of all objects pooled; `classes` holds the 8 classes and then the three
super-categories human, vehicle and bike (`settings` names their members), which are not part of any mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from trackmill.pipeline.evaluation.benchmarks.bdd100k_categories import (
    CATEGORIES,
    CLASSES,
    DISTRACTORS,
    SUPER_CATEGORIES,
)
from trackmill.pipeline.evaluation.benchmarks.bdd100k_counts import Counts, count_video
from trackmill.pipeline.evaluation.benchmarks.bdd100k_regions import overlapping_masks
from trackmill.pipeline.evaluation.benchmarks.bdd100k_rows import (
    Notes,
    Plots,
    add_plots,
    plots_of,
    pooled,
    scored_row,
    totals,
)
from trackmill.pipeline.evaluation.class_vote import vote
from trackmill.pipeline.evaluation.overlaps import Iou
from trackmill.pipeline.evaluation.processes import results_in_order
from trackmill.pipeline.evaluation.readers.mot_layout import choose_sequences, unknown
from trackmill.pipeline.evaluation.readers.scalabel import LabelledVideo, read_scalabel
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.tracks import no_tracks
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact

IOU: Mapping[str, Iou] = {"bdd100k-mot": "box", "bdd100k-mots": "mask"}
"""What each benchmark compares by default."""

FAMILIES = ("teta", "hota", "clear", "identity")


OPTIONS = frozenset({"bdd_rule", "class_vote", "iou", "metrics", "sequences"})
"""Options that apply; see `trackmill.pipeline.evaluation.request.Options`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """What holds for all videos; `results` is where they come from."""

    results: str
    iou: Iou
    rule: Literal["published", "corrected"]
    families: Collection[str]
    class_vote: bool


@dataclass(slots=True, kw_only=True)
class _VideoScores:
    """What one video adds to a report."""

    name: str
    counts: dict[int, Counts]
    plots: Plots
    notes: Notes


def evaluate(
    name: str,
    gt: str,
    results: str,
    options: Options,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = 1,
) -> Report:
    """Evaluate one of `IOU`.

    Args:
        name: the benchmark.
        gt, results: one Scalabel JSON (gzip allowed) or a folder of them. Frames are matched by `videoName` and
            `frameIndex`; a video or frame without results counts as without predictions, and a note says so.
        options: `iou`, `sequences`, `bdd_rule`, `class_vote` and `metrics` apply.
        progress: called with videos done and videos in all.
        workers: processes, see `results_in_order`; files are read in this one.

    Raises:
        BadTracks: a file cannot be evaluated, or has results of a video or frame that is not in the ground truth.
        OSError: a file that cannot be read.
    """
    families = _families(name, options)
    iou = options.iou or IOU[name]
    report = Report(benchmark=name, iou=iou, metrics={})
    report.settings = {
        "iou": iou,
        "rule": options.bdd_rule,
        "class_vote": bool(options.class_vote),
        "metrics": list(families),
        "super_categories": {group: list(members) for group, members in SUPER_CATEGORIES.items()},
    }
    truths = read_scalabel(gt, CATEGORIES, side="gt", shape=iou, sequences=options.sequences)
    names = choose_sequences(truths, options.sequences, gt)
    results_of = read_scalabel(results, CATEGORIES, side="results", shape=iou, sequences=options.sequences)
    others = [video for video in results_of if video not in truths]
    if others and not set(names) <= set(results_of):
        raise BadTracks(f"{redact(results)}: {unknown(others[0], list(truths))}")
    by_class = {label: Counts.none() for label in CLASSES.values()}
    notes = Notes()
    rules = _Rules(
        results=results, iou=iou, rule=options.bdd_rule, families=families, class_vote=bool(options.class_vote)
    )
    pairs = [(truths.pop(video), results_of.pop(video, None)) for video in names]
    for done, video in enumerate(results_in_order(partial(_score, rules=rules), pairs, names, workers), start=1):
        notes.add(video.notes)
        by_class = {label: total + video.counts[label] for label, total in by_class.items()}
        report.sequences[video.name] = totals(video.counts, families)
        add_plots(report, video.name, video.plots)
        if progress is not None:
            progress(done, len(names))
    report.metrics = totals(by_class, families)
    report.classes = {label: scored_row(by_class[number], families) for label, number in CLASSES.items()}
    for group, members in SUPER_CATEGORIES.items():
        report.classes[group] = scored_row(pooled(by_class[CLASSES[member]] for member in members), families)
    report.notes = notes.lines(by_class, options.bdd_rule == "published", families)
    if others:
        listed = ", ".join(others[:8]) + (", ..." if len(others) > 8 else "")
        report.notes.append(f"results of videos without ground truth were left out ({len(others):,}): {listed}")
    return report


def _score(pair: tuple[LabelledVideo, LabelledVideo | None], rules: _Rules) -> _VideoScores:
    """Score one video: its ground truth, and its results if there are any."""
    truth, found = pair
    notes = Notes()
    predictions = _aligned(truth, found, rules.results, notes)
    if rules.iou == "mask":
        predictions = _without_overlaps(truth, predictions, rules.results, notes)
    if rules.class_vote:
        predictions = _voted(predictions)
    counts, compared = count_video(truth, predictions, iou=rules.iou, rule=rules.rule, families=rules.families)
    notes.look_at(truth, predictions)
    plots = plots_of(truth, counts, compared, rules.families)
    return _VideoScores(name=truth.name, counts=counts, plots=plots, notes=notes)


def _families(name: str, options: Options) -> tuple[str, ...]:
    families = options.metrics or FAMILIES
    for family in families:
        if family not in FAMILIES:
            raise BadTracks(f"{name} has no {family}; choose from {', '.join(FAMILIES)}")
    return tuple(families)


def _aligned(truth: LabelledVideo, predictions: LabelledVideo | None, results: str, notes: Notes) -> LabelledVideo:
    """Renumber the predictions to the time steps of the ground truth."""
    if predictions is None:
        notes.missing_videos.append(truth.name)
        nothing = np.zeros(0, bool)
        tracks = replace(no_tracks(), masks=None if truth.tracks.masks is None else np.zeros(0, object))
        return replace(truth, tracks=tracks, crowd=nothing, ignored=nothing)
    steps = np.searchsorted(truth.frame_indices, predictions.frame_indices)
    known = truth.frame_indices[np.minimum(steps, len(truth.frame_indices) - 1)] == predictions.frame_indices
    if not known.all():
        extra = predictions.frame_indices[~known].tolist()
        raise BadTracks(
            f"{redact(results)}: video {truth.name!r}: frameIndex {extra[0]} is not in the ground truth"
            f"{f' (and {len(extra) - 1:,} more)' if len(extra) > 1 else ''}, which has "
            f"{len(truth.frame_indices):,} frames from {truth.frame_indices[0]} to {truth.frame_indices[-1]}; "
            "leave such frames out"
        )
    notes.missing_frames += len(truth.frame_indices) - len(steps)
    tracks = replace(predictions.tracks, frames=steps[predictions.tracks.frames])
    return replace(predictions, tracks=tracks, frame_indices=truth.frame_indices, frame_names=truth.frame_names)


def _without_overlaps(truth: LabelledVideo, predictions: LabelledVideo, results: str, notes: Notes) -> LabelledVideo:
    """Drop all predictions of frames in which two masks overlap, which segmentation tracking does not allow."""
    masks, tracks = truth.tracks.masks, predictions.tracks
    assert masks is not None and tracks.masks is not None
    if len(masks) and len(tracks) and masks[0]["size"] != tracks.masks[0]["size"]:
        raise BadTracks(
            f"{redact(results)}: video {truth.name!r}: masks are {tracks.masks[0]['size']} (height, width), "
            f"the ground truth's {masks[0]['size']}"
        )
    bad = overlapping_masks(tracks)
    if bad.size == 0:
        return predictions
    notes.overlapping_frames += len(bad)
    keep = ~np.isin(tracks.frames, bad)
    return replace(
        predictions, tracks=tracks.select(keep), crowd=predictions.crowd[keep], ignored=predictions.ignored[keep]
    )


def _voted(predictions: LabelledVideo) -> LabelledVideo:
    """Give each track the class of most of its boxes; on a tie, the first in BDD100K's order of classes."""
    order = np.array([*CLASSES.values(), *DISTRACTORS])
    rank = np.zeros(order.max() + 1, np.int64)
    rank[order] = np.arange(len(order))
    tracks = predictions.tracks
    return replace(predictions, tracks=replace(tracks, labels=order[vote(tracks.ids, rank[tracks.labels])]))
