"""Turns the MOTChallenge text of one sequence into a video: checks it, and marks what is scored or ignored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.benchmarks.mot_classes import NO_CLASS, NUM_CLASSES, Rule, ScoredClasses
from trackmill.pipeline.evaluation.readers.mot_json import SCORED
from trackmill.pipeline.evaluation.readers.mot_sequence_file import SequenceFile
from trackmill.pipeline.evaluation.tracks import Tracks, Video, make_tracks
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.mot_text import MotRows

_SHARE_ANNOTATED = 10
"""A tenth of a sequence may be empty at its ends: people come late and leave early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSequence:
    """The files of one sequence, and what is read of them.

    Args:
        name: of the sequence.
        truth, results: its files.
        rule: the benchmark's.
        classes: what is scored.
        preprocess: ignore ground truth of other classes; False scores the considered boxes of all classes, as
            TrackEval does, unless classes were asked for.
        frames: the first and the last that count, from 1; None: all.
    """

    name: str
    truth: SequenceFile
    results: SequenceFile
    rule: Rule
    classes: ScoredClasses
    preprocess: bool
    frames: tuple[int, int] | None = None


def read_video(sequence: TextSequence, notes: list[str]) -> Video:
    """Read and check one sequence.

    Args:
        sequence: what to read.
        notes: receives notes for the report, without the name of the sequence.

    Raises:
        BadTracks: a file that cannot be evaluated.
        OSError: a file that cannot be read.
    """
    name = sequence.name
    truth_rows, result_rows = sequence.truth.read(), sequence.results.read()
    length = sequence.truth.length()
    _check_frames(truth_rows, length, "seqLength of seqinfo.ini")
    last = int(truth_rows.frames.max()) if len(truth_rows) else None
    if length is None:
        _check_frames(
            result_rows,
            last or 0,
            "the last frame with ground truth; if the sequence goes on, say so in "
            f"{sequence.truth.place_of_seqinfo()} ([Sequence], seqLength=N)",
        )
    else:
        _check_frames(result_rows, length, "seqLength of seqinfo.ini")
    truth = _truth_tracks(truth_rows, sequence, notes)
    # Own results of several classes look like a copy of ground truth, but for its rows with flag 0.
    is_copy = _looks_like_truth(result_rows) and not (sequence.classes.asked and result_rows.confidence.all())
    if sequence.results.is_gt_layout or is_copy:
        predictions = _truth_tracks(result_rows, sequence, [])
        predictions = predictions.select(~predictions.ignored)
        notes.append("the results are ground truth; only its scored boxes are taken")
    elif sequence.classes.asked:
        is_other = ~np.isin(truth_rows.classes, list(sequence.classes.names)) & (truth_rows.confidence >= 1)
        predictions = _results_of_classes(result_rows, sequence, notes, truth_has_others=bool(is_other.any()))
    else:
        predictions = _result_tracks(result_rows)
    num_left_out = len(predictions)
    if sequence.frames is not None:
        truth, predictions = (_within(tracks, *sequence.frames) for tracks in (truth, predictions))
        if num_left_out := num_left_out - len(predictions):
            notes.append(f"{num_left_out:,} predictions of other frames are left out")
    else:
        notes += _outside_of_truth(truth_rows, predictions, length)
        notes += _without_results(truth.select(~truth.ignored), predictions)
    return Video(name=name, num_frames=length or last or 0, gt=truth, predictions=predictions)


def _outside_of_truth(truth: MotRows, predictions: Tracks, length: int | None) -> list[str]:
    """A note where many predictions lie before or after all that is annotated, as with half of a ground truth."""
    if len(truth) == 0 or length is None:
        return []
    first, last = int(truth.frames.min()), int(truth.frames.max())
    outside = len(predictions) - len(_within(predictions, first, last))
    if not outside or first - 1 + length - last < max(2, length // _SHARE_ANNOTATED):
        return []
    return [
        f"{outside:,} predictions count as false because the ground truth has rows of frames {first} to {last} only; "
        f"--frames {first}:{last} leaves them out"
    ]


def _without_results(truth: Tracks, predictions: Tracks) -> list[str]:
    """A note where results begin long after the ground truth does, or end long before: a part that was tracked."""
    if not len(truth) or not len(predictions):
        return []
    first, last = int(predictions.frames.min()) + 1, int(predictions.frames.max()) + 1
    begin, end = int(truth.frames.min()) + 1, int(truth.frames.max()) + 1
    missed = len(truth) - len(_within(truth, first, last))
    if not missed or max(0, first - begin) + max(0, end - last) < max(10, (end - begin + 1) // _SHARE_ANNOTATED):
        return []
    return [
        f"{missed:,} objects count as missed because the results have rows of frames {first} to {last} only, of "
        f"{begin} to {end}; if no other was tracked, --frames {first}:{last} scores that part"
    ]


def _within(tracks: Tracks, first: int, last: int) -> Tracks:
    return tracks.select((tracks.frames >= first - 1) & (tracks.frames <= last - 1))


def _check_frames(rows: MotRows, length: int | None, what: str) -> None:
    if length is None or len(rows) == 0:
        return
    beyond = np.flatnonzero(rows.frames > length)
    if beyond.size:
        row = int(beyond[0])
        raise BadTracks(f"{rows.where(row)}: frame {rows.frames[row]} is beyond {length}, {what}")


def _truth_tracks(rows: MotRows, sequence: TextSequence, notes: list[str]) -> Tracks:
    """All rows of a ground truth; those that are not scored, such as distractors, are marked as ignored.

    Without preprocessing the considered boxes of every class are scored, as in TrackEval.
    """
    rule, asked = sequence.rule, sequence.classes.asked
    classes = rows.classes if rule.has_classes else np.full(len(rows), SCORED)
    if rule.may_lack_classes:
        classes = np.where(classes == NO_CLASS, SCORED, classes)
    _check_classes(rows, classes, sequence)
    # TrackEval truncates the flag to an integer.
    unflagged = np.trunc(rows.confidence) == 0
    if asked:
        for number in sequence.classes.names:
            of_class = classes == number
            if number != SCORED and of_class.any() and unflagged[of_class].all():
                # MOTChallenge gives flag 0 to all that it does not score itself.
                unflagged[of_class] = False
                shown = sequence.classes.in_words(number)
                notes.append(f"all rows of class {shown} have flag 0, and are scored all the same")
        other = ~np.isin(classes, list(sequence.classes.names))
    else:
        other = sequence.preprocess & (classes != SCORED)
        notes += _passed_over(classes[other & ~unflagged], sequence.classes)
    return make_tracks(rows.frames - 1, rows.ids, rows.boxes, labels=classes, ignored=unflagged | other)


def _passed_over(classes: NDArray[np.int64], scored: ScoredClasses) -> list[str]:
    """A note about considered rows that are not scored; MOTChallenge itself marks none so, own annotations do."""
    numbers = np.unique(classes).tolist()
    if not numbers:
        return []
    listed = ", ".join(map(scored.in_words, numbers))
    asked = ",".join(map(str, [SCORED, *numbers]))
    return [f"not scored, though its rows have flag 1 (column 7): class {listed}; --classes {asked} scores all of them"]


def _check_classes(rows: MotRows, classes: NDArray[np.int64], sequence: TextSequence) -> None:
    asked = sequence.classes.asked
    odd = np.flatnonzero((classes < 0) if asked else (classes < 1) | (classes > NUM_CLASSES))
    if odd.size:
        advice = "should be a number of 0 or more" if asked else f"should be 1 to {NUM_CLASSES}"
        more = "" if asked else "; own classes are scored by --classes"
        raise BadTracks(
            f"{rows.where(int(odd[0]))}: the class (column 8) {advice}{more}; files without classes can be evaluated "
            "as mot15"
        )
    odd = np.flatnonzero((classes < 1) | (classes > NUM_CLASSES))
    if asked and odd.size and sequence.classes.distractors:
        listed = ", ".join(map(str, sequence.classes.distractors))
        raise BadTracks(
            f"{rows.where(int(odd[0]))}: class {classes[odd[0]]} (column 8) is none of MOTChallenge's 1 to "
            f"{NUM_CLASSES}; add --no-preprocess if these are your own classes, else {listed} are distractors"
        )


def _result_tracks(rows: MotRows) -> Tracks:
    odd = np.flatnonzero(rows.classes > SCORED)
    if odd.size:
        row = int(odd[0])
        raise BadTracks(
            f"{rows.where(row)}: class {rows.classes[row]} (column 8), but only one class is scored; leave out the "
            f"others and write 1 or -1, or score several with --classes, such as --classes 1,{rows.classes[row]}"
        )
    _check_ids(rows)
    return make_tracks(rows.frames - 1, rows.ids, rows.boxes, scores=rows.confidence)


def _results_of_classes(
    rows: MotRows, sequence: TextSequence, notes: list[str], truth_has_others: bool = False
) -> Tracks:
    """Results of the chosen classes. Where they name no class and one was chosen, they are of that class."""
    _check_ids(rows)
    chosen = sequence.classes
    without = rows.classes < 0
    if without.all():
        labels = np.full(len(rows), next(iter(chosen.names)) if len(chosen.names) == 1 else NO_CLASS)
        if len(rows) and len(chosen.names) > 1:
            notes.append(
                "the results name no class (column 8), so every prediction is compared with each class, and "
                "those of the others count as false; the row of all classes together is not affected"
            )
        elif len(rows) and truth_has_others:
            shown = chosen.in_words(next(iter(chosen.names)))
            notes.append(
                f"the results name no class (column 8), so every prediction counts as one of class {shown}, though the "
                "ground truth has other classes, too"
            )
        return make_tracks(rows.frames - 1, rows.ids, rows.boxes, labels=labels, scores=rows.confidence)
    if without.any():
        row = int(np.flatnonzero(without)[0])
        raise BadTracks(f"{rows.where(row)}: no class (column 8), where other rows have one; write it there")
    tracks = make_tracks(rows.frames - 1, rows.ids, rows.boxes, labels=rows.classes, scores=rows.confidence)
    keep = np.isin(tracks.labels, list(chosen.names))
    if not keep.all():
        numbers, counts = np.unique(tracks.labels[~keep], return_counts=True)
        listed = ", ".join(
            f"{count:,} of class {chosen.in_words(n)}" for n, count in zip(numbers.tolist(), counts.tolist())
        )
        notes.append(f"predictions of other classes are left out: {listed}")
    return tracks.select(keep)


def _check_ids(rows: MotRows) -> None:
    odd = np.flatnonzero(rows.ids < 0)
    if odd.size:
        raise BadTracks(f"{rows.where(int(odd[0]))}: id {rows.ids[odd[0]]}; results need an identity of 0 or more")


def _looks_like_truth(rows: MotRows) -> bool:
    """Whether a result file is a copy of a MOT16/17/20 `gt.txt`: nine columns and classes that results never have."""
    return (
        rows.num_columns == 9
        and bool(np.isin(rows.confidence, (0, 1)).all())
        and bool(((rows.classes >= 1) & (rows.classes <= NUM_CLASSES)).all())
        and bool((rows.classes > SCORED).any())
    )


def json_video(video: Video, preprocess: bool) -> Video:
    """Mark what is not scored as ignored in a video from JSON, whose labels are MOTChallenge's numbers."""
    return replace(video, gt=replace(video.gt, ignored=preprocess & (video.gt.labels != SCORED)))
