"""MOTChallenge and the benchmarks that use its text format: MOT15, MOT16, MOT17, MOT20, DanceTrack, SportsMOT.

One class is scored. MOT16, 17 and 20 also annotate distractors, which look like pedestrians: predictions matched to a
distractor are removed first, then all ground truth except pedestrians that are marked to be considered (TrackEval
1.3.0, `MotChallenge2DBox`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from trackmill.pipeline.evaluation.assignment import best_pairs
from trackmill.pipeline.evaluation.benchmarks.mot_videos import RULES, json_video, text_videos
from trackmill.pipeline.evaluation.box_overlaps import EPS
from trackmill.pipeline.evaluation.overlaps import Iou, Overlaps, find_overlaps
from trackmill.pipeline.evaluation.readers.mot_json import is_json, read_mot_json
from trackmill.pipeline.evaluation.readers.mot_layout import choose_sequences, find_sequences, result_files
from trackmill.pipeline.evaluation.report.moments import describe_moments, worst_first
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.scoring import FAMILIES, TrackCounts, count
from trackmill.pipeline.evaluation.tracks import Tracks, Video
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact

_MOST_MOMENTS = 24


OPTIONS = frozenset({"frames", "gt_file", "iou", "metrics", "preprocess", "sequences"})
"""Options that apply; see `trackmill.pipeline.evaluation.request.Options`."""


def evaluate(
    name: str, gt: str, results: str, options: Options, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Evaluate one of `RULES`.

    Args:
        name: the benchmark.
        gt, results: folder in MOTChallenge's layout, flat folder of `SEQUENCE.txt`, zip archive, or one file; or both
            as JSON in COCO-VID form.
        options: `sequences`, `preprocess`, `metrics` and, for JSON, `iou` apply.
        progress: called with sequences done and sequences in all.

    Raises:
        BadTracks: a file that cannot be evaluated.
        OSError: a file that cannot be read.
    """
    rule = RULES[name]
    families = _families(options)
    iou = options.iou or "box"
    report = Report(benchmark=name, iou=iou, metrics={})
    report.settings = {
        "preprocess": options.preprocess and bool(rule.distractors),
        "distractor_classes": list(rule.distractors) if options.preprocess else [],
        "metrics": list(families),
    }
    if options.gt_file != "gt.txt":
        report.settings["gt_file"] = options.gt_file
    if options.frames:
        report.settings["frames"] = options.frames
    total = TrackCounts.none(families)
    num_videos, videos = _videos(name, gt, results, options, report.notes)
    for done, video in enumerate(videos, start=1):
        overlaps, gt_rows, pred_rows = _scored(video, rule.distractors if options.preprocess else (), iou)
        counts = count(overlaps, families)
        total += counts
        report.sequences[video.name] = counts.row()
        _note_empty(report, video.name, counts)
        if counts.hota is not None:
            curves = counts.hota.curves()
            report.curves[video.name] = {key: (100 * curves[key]).tolist() for key in ("HOTA", "DetA", "AssA")}
        if counts.clear is not None:
            timeline, moments = describe_moments(
                video.name, gt_rows, pred_rows, overlaps, counts.clear, rule.scored, video.frame_names
            )
            report.timelines[video.name] = timeline
            report.moments = worst_first(report.moments + moments)[:_MOST_MOMENTS]
        if progress is not None:
            progress(done, num_videos)
    report.metrics = total.row()
    report.classes = {rule.scored: total.row()}
    if total.gt == 0:
        report.notes.append("no objects in the ground truth: nothing can be scored")
    return report


def _families(options: Options) -> tuple[str, ...]:
    families = options.metrics or FAMILIES
    for family in families:
        if family not in FAMILIES:
            raise BadTracks(f"{family} needs classes and scores; MOTChallenge text has {', '.join(FAMILIES)}")
    return tuple(families)


def _videos(name: str, gt: str, results: str, options: Options, notes: list[str]) -> tuple[int, Iterable[Video]]:
    """The number of videos, and the videos."""
    rule = RULES[name]
    if is_json(gt):
        if options.frames or options.gt_file != "gt.txt":
            raise BadTracks(f"{name}: --frames and --gt-file are for MOTChallenge text; leave them out")
        names = {rule.scored, "pedestrian", "person"}
        videos, json_notes = read_mot_json(gt, results, names, options.iou or "box", options.sequences)
        notes.extend(json_notes)
        return len(videos), [json_video(video, options.preprocess) for video in videos]
    if options.iou == "mask":
        raise BadTracks(f"{name}: MOTChallenge text holds boxes, no masks; leave out --iou mask")
    if is_json(results):
        raise BadTracks(f"{redact(results)}: JSON results need ground truth as JSON, which numbers the images")
    truths = find_sequences(gt, options.gt_file)
    wanted = choose_sequences(truths, options.sequences, gt)
    files = result_files(results, truths, options.sequences, notes)
    return len(wanted), text_videos(wanted, truths, files, rule, options.preprocess, notes, _frame_range(options))


def _frame_range(options: Options) -> tuple[int, int] | None:
    if options.frames in ("", ":"):
        return None
    first, _, last = options.frames.partition(":")
    found = int(first or 1), int(last or np.iinfo(np.int64).max)
    if not 1 <= found[0] <= found[1]:
        raise BadTracks(f"--frames {options.frames}: give FROM:TO with 1 <= FROM <= TO, such as 301:600")
    return found


def _scored(video: Video, distractors: tuple[int, ...], iou: Iou) -> tuple[Overlaps, Tracks, Tracks]:
    """Remove what is not scored. Returns the overlaps, and the ground-truth and predicted rows in their order."""
    overlaps = find_overlaps(video.gt, video.predictions, video.num_frames, iou)
    keep_gt, keep_pred = ~video.gt.ignored, np.ones(len(video.predictions), bool)
    if distractors:
        matched = best_pairs(overlaps, np.where(overlaps.pair_iou >= 0.5 - EPS, overlaps.pair_iou, 0))
        labels = video.gt.labels[overlaps.pair_gt[matched]]
        keep_pred[overlaps.pair_pred[matched[np.isin(labels, distractors)]]] = False
    return overlaps.select(keep_gt, keep_pred), video.gt.select(keep_gt), video.predictions.select(keep_pred)


def _note_empty(report: Report, name: str, counts: TrackCounts) -> None:
    if counts.gt == 0:
        report.notes.append(f"{name}: no objects in the ground truth; its {counts.predictions:,} predictions are false")
    elif counts.predictions == 0:
        report.notes.append(f"{name}: no predictions; all {counts.gt:,} objects are missed")
