"""MOTChallenge and the benchmarks that use its text format: MOT15, MOT16, MOT17, MOT20, DanceTrack, SportsMOT.

One class is scored, unless others are asked for. MOT16, 17 and 20 also annotate distractors, which look like
pedestrians: predictions matched to a distractor are removed first, then all ground truth except pedestrians that are
marked to be considered (TrackEval 1.3.0, `MotChallenge2DBox`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from trackmill.pipeline.evaluation.benchmarks.mot_classes import (
    RULES,
    ScoredClasses,
    asked_classes,
    benchmark_classes,
    what_was_not_scored,
)
from trackmill.pipeline.evaluation.benchmarks.mot_scores import SequenceScores, score
from trackmill.pipeline.evaluation.benchmarks.mot_videos import TextSequence, json_video, read_video
from trackmill.pipeline.evaluation.box_forms import listed, notes_on_forms
from trackmill.pipeline.evaluation.frame_range import frame_range
from trackmill.pipeline.evaluation.overlaps import Iou
from trackmill.pipeline.evaluation.processes import results_in_order
from trackmill.pipeline.evaluation.readers.mot_json import is_json, read_mot_json
from trackmill.pipeline.evaluation.readers.mot_layout import choose_sequences, find_sequences, result_files
from trackmill.pipeline.evaluation.report.moments import worst_first
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.scoring import FAMILIES, TrackCounts
from trackmill.pipeline.evaluation.tracks import Video
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact

_MOST_MOMENTS = 24


OPTIONS = frozenset({"classes", "frames", "gt_file", "iou", "metrics", "preprocess", "sequences"})
"""Options that apply; see `trackmill.pipeline.evaluation.request.Options`."""


def evaluate(
    name: str,
    gt: str,
    results: str,
    options: Options,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = 1,
) -> Report:
    """Evaluate one of `RULES`.

    Args:
        name: the benchmark.
        gt, results: folder in MOTChallenge's layout, flat folder of `SEQUENCE.txt`, zip archive, or one file; or both
            as JSON in COCO-VID form.
        options: `sequences`, `preprocess`, `metrics`, for text `classes`, `frames` and `gt_file`, for JSON `iou` apply.
        progress: called with sequences done and sequences in all.
        workers: processes, see `results_in_order`; JSON is read as a whole, and evaluated in this process.

    Raises:
        BadTracks: a file that cannot be evaluated.
        OSError: a file that cannot be read.
    """
    families = _families(options)
    report = Report(benchmark=name, iou=options.iou or "box", metrics={})
    if is_json(gt):
        num_sequences, classes, scores = _json_scores(name, gt, results, options, report)
    else:
        num_sequences, classes, scores = _text_scores(name, gt, results, options, report, workers)
    report.settings = _settings(name, options, classes, families)
    total = TrackCounts.none(families)
    by_class: dict[str, TrackCounts] = {}
    forms: dict[str, str] = {}
    notes: dict[str, list[str]] = {}
    unscored = []
    for done, sequence in enumerate(scores, start=1):
        total += sequence.total
        for label, counts in sequence.classes.items():
            by_class[label] = by_class.get(label, TrackCounts.none(families)) + counts
        unscored.append(sequence.unscored)
        forms[sequence.name] = sequence.form
        for note in [*sequence.notes, *_lack(sequence, classes)]:
            notes.setdefault(note, []).append(sequence.name)
        _add(report, sequence)
        if progress is not None:
            progress(done, num_sequences)
    report.notes += [f"{listed(names)}: {note}" for note, names in notes.items()]
    report.notes += notes_on_forms(forms)
    report.metrics = total.row()
    report.classes = {label: counts.row() for label, counts in by_class.items()}
    if total.gt == 0:
        if options.frames:
            raise BadTracks(
                f"{redact(gt)}: no object that is scored lies in --frames {options.frames}; FROM and TO count from 1, "
                "both included"
            )
        if rows := np.concatenate([*unscored, np.zeros(0, np.int64)]).tolist():
            raise BadTracks(f"{redact(gt)}: no row is scored: {what_was_not_scored(np.array(rows), classes)}")
        report.notes.append("no objects in the ground truth: nothing can be scored")
    elif len(by_class) > 1:
        empty = [label for label, counts in by_class.items() if counts.gt == 0]
        report.notes += [f"class {label}: no objects in the ground truth" for label in empty]
    return report


def _settings(name: str, options: Options, classes: ScoredClasses, families: tuple[str, ...]) -> dict[str, object]:
    rule = RULES[name]
    settings: dict[str, object] = {
        "preprocess": options.preprocess and bool(rule.distractors),
        "distractor_classes": list(classes.distractors),
        "metrics": list(families),
    }
    if classes.asked:
        settings["classes"] = [classes.in_words(number) for number in classes.names]
    if options.gt_file != "gt.txt":
        settings["gt_file"] = options.gt_file
    if options.frames:
        settings["frames"] = options.frames
    return settings


def _families(options: Options) -> tuple[str, ...]:
    families = options.metrics or FAMILIES
    for family in families:
        if family not in FAMILIES:
            raise BadTracks(f"{family} needs classes and scores; MOTChallenge text has {', '.join(FAMILIES)}")
    return tuple(families)


_Scores = tuple[int, ScoredClasses, Iterator[SequenceScores]]
"""The number of sequences, what is scored, and the scores of one sequence after the other."""


def _json_scores(name: str, gt: str, results: str, options: Options, report: Report) -> _Scores:
    if options.frames or options.gt_file != "gt.txt" or options.classes is not None:
        raise BadTracks(f"{name}: --frames, --gt-file and --classes are for MOTChallenge text; leave them out")
    iou: Iou = options.iou or "box"
    names = {RULES[name].scored, "pedestrian", "person"}
    videos, notes = read_mot_json(gt, results, names, iou, options.sequences)
    report.notes.extend(notes)
    classes = benchmark_classes(RULES[name], options.preprocess)

    def scored(video: Video) -> SequenceScores:
        marked = json_video(video, options.preprocess)
        return score(marked, classes, _families(options), iou, video.num_frames, [])

    return len(videos), classes, map(scored, videos)


def _text_scores(name: str, gt: str, results: str, options: Options, report: Report, workers: int | None) -> _Scores:
    if options.iou == "mask":
        raise BadTracks(f"{name}: MOTChallenge text holds boxes, no masks; leave out --iou mask")
    if is_json(results):
        raise BadTracks(f"{redact(results)}: JSON results need ground truth as JSON, which numbers the images")
    truths = find_sequences(gt, options.gt_file)
    wanted = choose_sequences(truths, options.sequences, gt)
    files = result_files(results, truths, options.sequences, report.notes)
    rule = RULES[name]
    classes = benchmark_classes(rule, options.preprocess)
    if options.classes is not None:
        asked_for = [truths[sequence] for sequence in wanted]
        classes = asked_classes(name, options.classes, asked_for, rule, options.preprocess)
    sequences = [
        TextSequence(
            name=sequence,
            truth=truths[sequence],
            results=files[sequence],
            rule=rule,
            classes=classes,
            preprocess=options.preprocess,
            frames=frame_range(options.frames, truths[sequence]),
        )
        for sequence in wanted
    ]
    scores = results_in_order(partial(_score_text, families=_families(options)), sequences, wanted, workers)
    return len(wanted), classes, scores


def _score_text(sequence: TextSequence, families: tuple[str, ...]) -> SequenceScores:
    """Read and score one sequence."""
    notes: list[str] = []
    video = read_video(sequence, notes)
    first, last = sequence.frames or (1, video.num_frames)
    num_frames = max(0, min(last, video.num_frames) - first + 1)
    return score(video, sequence.classes, families, "box", num_frames, notes)


def _lack(sequence: SequenceScores, classes: ScoredClasses) -> list[str]:
    """What a sequence lacks: objects or predictions."""
    counts = sequence.total
    if counts.gt == 0:
        why = "no objects in the ground truth"
        if len(sequence.unscored):
            why = f"no row of the ground truth is scored: {what_was_not_scored(sequence.unscored, classes)}"
        return [f"{why}; its {counts.predictions:,} predictions are false"]
    return [] if counts.predictions else [f"no predictions; all {counts.gt:,} objects are missed"]


def _add(report: Report, sequence: SequenceScores) -> None:
    """Add the row and the plots of one sequence."""
    name, counts = sequence.name, sequence.total
    report.sequences[name] = counts.row()
    if counts.hota is not None:
        curves = counts.hota.curves()
        report.curves[name] = {key: (100 * curves[key]).tolist() for key in ("HOTA", "DetA", "AssA")}
    if sequence.timeline is not None:
        report.timelines[name] = sequence.timeline
        report.moments = worst_first(report.moments + sequence.moments)[:_MOST_MOMENTS]
