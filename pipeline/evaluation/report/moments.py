"""The mistakes of one sequence over time: counts by frame, and the frames in which identities switch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from trackmill.pipeline.evaluation.metrics.clear import ClearCounts, Matches
from trackmill.pipeline.evaluation.overlaps import Overlaps
from trackmill.pipeline.evaluation.report.report import Drawn, Moment, Timeline
from trackmill.pipeline.evaluation.tracks import Tracks


def describe_moments(
    name: str,
    gt: Tracks,
    predictions: Tracks,
    overlaps: Overlaps,
    counts: ClearCounts,
    label_name: str,
    frame_names: Sequence[str] = (),
    most: int = 8,
) -> tuple[Timeline, list[Moment]]:
    """Counts of every frame and the worst switches, from the matches of CLEAR.

    Args:
        name: name of the sequence.
        gt, predictions: row i is row i of `overlaps`.
        overlaps: the ones that `counts` was computed from.
        counts: of this one video; sums have no matches.
        label_name: name of the class that was compared.
        frame_names: one picture name a time step, or empty.
        most: largest number of moments; each is one frame.

    Returns:
        The timeline, and the frames with a switch: most switches first, then most missed and false objects, then the
        earliest.

    Raises:
        ValueError: `counts` is a sum and has no matches.
    """
    matches = counts.matches
    if matches is None:
        raise ValueError(f"{name}: summed counts have no matches; describe each video before its counts are added")
    num_frames = overlaps.num_frames
    frames = overlaps.gt_frames[matches.rows_gt]
    matched = np.bincount(frames, minlength=num_frames)
    switches = np.bincount(frames[matches.switched], minlength=num_frames)
    missed = np.bincount(overlaps.gt_frames, minlength=num_frames) - matched
    false = np.bincount(overlaps.pred_frames, minlength=num_frames) - matched
    timeline = Timeline(tp=matched.tolist(), fn=missed.tolist(), fp=false.tolist(), idsw=switches.tolist())
    with_switch = np.flatnonzero(switches)
    order = np.lexsort((with_switch, -(missed + false)[with_switch], -switches[with_switch]))
    bounds = np.searchsorted(frames, np.arange(num_frames + 1))
    moments = []
    for frame in with_switch[order[:most]].tolist():
        of_frame = slice(bounds[frame], bounds[frame + 1])
        switched, drawn_gt, drawn_predictions = _draw(gt, predictions, overlaps, matches, of_frame, frame)
        moments.append(
            Moment(
                sequence=name,
                frame=frame,
                frame_name=frame_names[frame] if frame < len(frame_names) else "",
                label=label_name,
                switches=switched,
                gt=drawn_gt,
                predictions=drawn_predictions,
            )
        )
    return timeline, moments


def add_timelines(timelines: Iterable[Timeline]) -> Timeline:
    """Sum of the timelines of one video's classes, all of the same length."""
    rows = np.array([(line.tp, line.fn, line.fp, line.idsw) for line in timelines], np.int64)
    tp, fn, fp, idsw = rows.sum(0).tolist()
    return Timeline(tp=tp, fn=fn, fp=fp, idsw=idsw)


def worst_first(moments: Iterable[Moment]) -> list[Moment]:
    """Sort moments of any sequences and classes as `describe_moments` does; equal ones keep their order."""
    return sorted(moments, key=lambda moment: (-len(moment.switches), -_num_mistakes(moment)))


def _num_mistakes(moment: Moment) -> int:
    return sum(drawn.state in ("missed", "false") for drawn in (*moment.gt, *moment.predictions))


def _draw(
    gt: Tracks, predictions: Tracks, overlaps: Overlaps, matches: Matches, of_frame: slice, frame: int
) -> tuple[tuple[tuple[int, int, int], ...], tuple[Drawn, ...], tuple[Drawn, ...]]:
    rows_gt, rows_pred = matches.rows_gt[of_frame], matches.rows_pred[of_frame]
    is_switch = matches.switched[of_frame]
    before = overlaps.pred_names[matches.before[of_frame][is_switch]]
    switches = zip(
        gt.ids[rows_gt[is_switch]].tolist(),
        before.tolist(),
        predictions.ids[rows_pred[is_switch]].tolist(),
        strict=True,
    )
    states_gt = dict.fromkeys(rows_gt.tolist(), "gt")
    states_pred = dict.fromkeys(rows_pred.tolist(), "match") | dict.fromkeys(rows_pred[is_switch].tolist(), "switch")
    bounds_gt, bounds_pred = overlaps.gt_starts[frame : frame + 2], overlaps.pred_starts[frame : frame + 2]
    return (
        tuple(switches),
        tuple(_drawn(gt, row, states_gt.get(row, "missed")) for row in range(*bounds_gt.tolist())),
        tuple(_drawn(predictions, row, states_pred.get(row, "false")) for row in range(*bounds_pred.tolist())),
    )


def _drawn(tracks: Tracks, row: int, state: str) -> Drawn:
    x0, y0, x1, y1 = tracks.boxes[row].tolist()
    return Drawn(id=int(tracks.ids[row]), box=(x0, y0, x1, y1), state=state)
