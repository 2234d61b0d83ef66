"""Turns the MOTChallenge text of one sequence into a video: checks it, and marks what is scored or ignored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from trackmill.pipeline.evaluation.readers.mot_json import SCORED
from trackmill.pipeline.evaluation.readers.mot_layout import SequenceFile
from trackmill.pipeline.evaluation.tracks import Tracks, Video, make_tracks
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.mot_text import MotRows

_NUM_CLASSES = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a benchmark treats its ground truth.

    Args:
        scored: name of the scored class.
        distractors: numbers of the classes whose matched predictions are removed.
        has_classes: whether column 8 of the ground truth is a class; in MOT15 it is a coordinate.
        may_lack_classes: whether a file may lack that column, or hold -1 in it; all its objects are then scored.
    """

    scored: str
    distractors: tuple[int, ...] = ()
    has_classes: bool = True
    may_lack_classes: bool = False


RULES = {
    "mot15": Rule(scored="pedestrian", has_classes=False),
    # Person on vehicle, static person, distractor, reflection; in MOT20 also non-motorised vehicle.
    "mot16": Rule(scored="pedestrian", distractors=(2, 7, 8, 12)),
    "mot17": Rule(scored="pedestrian", distractors=(2, 7, 8, 12)),
    "mot20": Rule(scored="pedestrian", distractors=(2, 6, 7, 8, 12)),
    # These annotate only the scored class, and are evaluated by MOT17's rule.
    "dancetrack": Rule(scored="dancer", distractors=(2, 7, 8, 12), may_lack_classes=True),
    "sportsmot": Rule(scored="athlete", distractors=(2, 7, 8, 12), may_lack_classes=True),
}


def text_videos(
    names: list[str],
    truths: dict[str, SequenceFile],
    files: dict[str, SequenceFile],
    rule: Rule,
    preprocess: bool,
    notes: list[str],
    frames: tuple[int, int] | None = None,
) -> Iterator[Video]:
    """Read one sequence after the other.

    Args:
        names: sequences to read.
        truths, files: ground truth and results of each.
        rule: the benchmark's rule.
        preprocess: ignore ground truth of other classes; False scores the considered boxes of all classes, as
            TrackEval does.
        notes: receives notes for the report.
        frames: the first and the last that count, from 1; None: all.

    Raises:
        BadTracks: a file that cannot be evaluated.
        OSError: a file that cannot be read.
    """
    for name in names:
        truth_rows, result_rows = truths[name].read(), files[name].read()
        length = truths[name].length()
        _check_frames(truth_rows, length, "seqLength of seqinfo.ini")
        last = int(truth_rows.frames.max()) if len(truth_rows) else None
        if length is None:
            _check_frames(
                result_rows, last or 0, "the last frame with ground truth; put seqinfo.ini beside gt/ if it goes on"
            )
        else:
            _check_frames(result_rows, length, "seqLength of seqinfo.ini")
        truth = _truth_tracks(truth_rows, rule, preprocess)
        if files[name].is_gt_layout or _looks_like_truth(result_rows):
            predictions = _truth_tracks(result_rows, rule, preprocess)
            predictions = predictions.select(~predictions.ignored)
            notes.append(f"{name}: the results are ground truth; only its scored boxes are taken")
        else:
            predictions = _result_tracks(result_rows)
        if frames is not None:
            truth, predictions = (_within(tracks, *frames) for tracks in (truth, predictions))
            if left := len(result_rows) - len(predictions):
                notes.append(f"{name}: {left:,} predictions of other frames are left out")
        yield Video(name=name, num_frames=length or last or 0, gt=truth, predictions=predictions)


def _within(tracks: Tracks, first: int, last: int) -> Tracks:
    return tracks.select((tracks.frames >= first - 1) & (tracks.frames <= last - 1))


def _check_frames(rows: MotRows, length: int | None, what: str) -> None:
    if length is None or len(rows) == 0:
        return
    beyond = np.flatnonzero(rows.frames > length)
    if beyond.size:
        row = int(beyond[0])
        raise BadTracks(f"{rows.where(row)}: frame {rows.frames[row]} is beyond {length}, {what}")


def _truth_tracks(rows: MotRows, rule: Rule, preprocess: bool) -> Tracks:
    """All rows of a ground truth; those that are not scored, such as distractors, are marked as ignored.

    Without preprocessing the considered boxes of every class are scored, as in TrackEval.
    """
    classes = rows.classes if rule.has_classes else np.full(len(rows), SCORED)
    if rule.may_lack_classes:
        classes = np.where(classes == -1, SCORED, classes)
    odd = np.flatnonzero((classes < 1) | (classes > _NUM_CLASSES))
    if odd.size:
        row = int(odd[0])
        raise BadTracks(
            f"{rows.where(row)}: the class (column 8) should be 1 to {_NUM_CLASSES}; files without classes can be "
            "evaluated as mot15"
        )
    return make_tracks(
        rows.frames - 1,
        rows.ids,
        rows.boxes,
        labels=classes,
        # TrackEval truncates the flag to an integer.
        ignored=(np.trunc(rows.confidence) == 0) | (preprocess & (classes != SCORED)),
    )


def _result_tracks(rows: MotRows) -> Tracks:
    odd = np.flatnonzero(rows.classes > SCORED)
    if odd.size:
        row = int(odd[0])
        raise BadTracks(
            f"{rows.where(row)}: class {rows.classes[row]} (column 8), but only one class is scored; leave out the "
            "others and write 1 or -1"
        )
    odd = np.flatnonzero(rows.ids < 0)
    if odd.size:
        raise BadTracks(f"{rows.where(int(odd[0]))}: id {rows.ids[odd[0]]}; results need an identity of 0 or more")
    return make_tracks(rows.frames - 1, rows.ids, rows.boxes, scores=rows.confidence)


def _looks_like_truth(rows: MotRows) -> bool:
    """Whether a result file is a copy of a MOT16/17/20 `gt.txt`: nine columns and classes that results never have."""
    return (
        rows.num_columns == 9
        and bool(np.isin(rows.confidence, (0, 1)).all())
        and bool(((rows.classes >= 1) & (rows.classes <= _NUM_CLASSES)).all())
        and bool((rows.classes > SCORED).any())
    )


def json_video(video: Video, preprocess: bool) -> Video:
    """Mark what is not scored as ignored in a video from JSON, whose labels are MOTChallenge's numbers."""
    return replace(video, gt=replace(video.gt, ignored=preprocess & (video.gt.labels != SCORED)))
