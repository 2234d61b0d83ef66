"""TETA: against the official tool's numbers, a plain-loop transcription of its rule, and cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from tests.evaluation import teta_reference
from tests.evaluation.make_tao import HEIGHT, WIDTH
from tests.evaluation.make_tracks import Faults, make_video, with_masks
from trackmill.pipeline.evaluation.metrics import teta_matching
from trackmill.pipeline.evaluation.metrics.teta import THRESHOLDS, TetaCounts, average_teta, teta
from trackmill.pipeline.evaluation.metrics.teta_matching import Problem, match
from trackmill.pipeline.evaluation.overlaps import Iou, find_overlaps
from trackmill.pipeline.evaluation.tracks import Tracks, Video, make_tracks, no_tracks


def count(video: Video, labels: list[int], iou: Iou = "box", exhaustive: bool = False) -> dict[int, TetaCounts]:
    overlaps = find_overlaps(video.gt, video.predictions, video.num_frames, iou)
    return teta(video, overlaps, labels, exhaustive)


def check(videos: list[Video], labels: list[int], iou: Iou = "box", exhaustive: bool = False) -> None:
    """Every count equal, every score to rounding, of each class pooled over the videos."""
    wanted = teta_reference.counts_by_loops(videos, labels, iou, exhaustive)
    each = [count(video, labels, iou, exhaustive) for video in videos]
    for label in labels:
        found = sum((counts[label] for counts in each), start=TetaCounts.none())
        for name in teta_reference.LOC + teta_reference.CLS:
            assert getattr(found, name).tolist() == wanted[label][name].tolist(), (label, name)
        assert found.scores() == pytest.approx(teta_reference.scores(wanted[label]), rel=1e-12, abs=1e-15), label


def objects(*rows: tuple[int, int, list[float], int]) -> Tracks:
    """Tracks of (frame, id, box, label)."""
    if not rows:
        return no_tracks()
    frames, ids, boxes, labels = zip(*rows)
    return make_tracks(frames, ids, boxes, labels)


def video_of(gt: Tracks, predictions: Tracks, num_frames: int = 1) -> Video:
    return Video(name="made", num_frames=num_frames, gt=gt, predictions=predictions)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_objects=st.integers(0, 25),
    num_frames=st.integers(1, 10),
    labels=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    evaluated=st.lists(st.integers(1, 6), max_size=6, unique=True),
    size=st.sampled_from([60, 200, 480]),
    steps=st.sampled_from([100, 1, 0.2, 0.05]),
    exhaustive=st.booleans(),
)
def test_equals_the_rule_in_plain_loops(
    seed: int,
    num_objects: int,
    num_frames: int,
    labels: list[int],
    evaluated: list[int],
    size: int,
    steps: float,
    exhaustive: bool,
) -> None:
    """Coarse `steps` make boxes coincide, so that ties decide; classes may lack ground truth, or not be evaluated."""
    made = make_video(
        seed=seed,
        num_frames=num_frames,
        num_objects=num_objects,
        height=size,
        width=size,
        labels=tuple(labels),
        faults=Faults(doubled=0.3, jitter=0.1, wrong_label=0.3, switch=0.1, swap=0.4),
        steps=steps,
    )
    check([made], evaluated, exhaustive=exhaustive)


@pytest.mark.parametrize("iou", ["box", "mask"])
@pytest.mark.parametrize("exhaustive", [False, True])
def test_pools_videos(iou: Iou, exhaustive: bool) -> None:
    faults = Faults(doubled=0.3, wrong_label=0.3, switch=0.1)
    videos = [
        with_masks(
            make_video(
                seed=seed, num_frames=8, num_objects=7, height=HEIGHT, width=WIDTH, labels=(4, 2, 9), faults=faults
            ),
            HEIGHT,
            WIDTH,
        )
        for seed in range(3)
    ]
    check(videos, [9, 4, 2, 7], iou, exhaustive)


def test_a_crowd_in_one_frame() -> None:
    """Sixty objects on a coarse grid: large matrices in which many scores are equal."""
    faults = Faults(doubled=0.5)
    made = make_video(
        seed=5, num_frames=4, num_objects=60, height=99, width=99, labels=(1, 1, 2), faults=faults, steps=0.1
    )
    check([made], [1, 2])


def test_by_hand_one_object_taken_for_another_class() -> None:
    # IoU 0.6 in both frames: it counts at 0, .05, ... .6, which are 13 of 20 thresholds, and at 3 of 10 for the class.
    gt = objects(*((frame, 1, [0, 0, 10, 10], 5) for frame in (0, 1)))
    predictions = objects(*((frame, 8, [0, 0, 6, 10], 6) for frame in (0, 1)))
    counts = count(video_of(gt, predictions, 2), [5, 6])
    assert counts[5].loc_tp.tolist() == [2] * 13 + [0] * 7
    assert counts[5].loc_fn.tolist() == [0] * 13 + [2] * 7
    assert counts[5].loc_fp.tolist() == [0] * 13 + [2] * 7
    assert counts[5].cls_fn.tolist() == [2] * 3 + [0] * 7
    assert counts[5].cls_tp.tolist() == counts[5].cls_fp.tolist() == [0] * 10
    assert counts[6].cls_fp.tolist() == [2] * 3 + [0] * 7
    assert counts[6].is_empty and not counts[5].is_empty
    assert counts[5].scores() == pytest.approx(
        {"TETA": 2 * 0.65 / 3, "LocA": 0.65, "AssocA": 0.65, "ClsA": 0}
        | {"LocRe": 0.65, "LocPr": 0.65, "AssocRe": 0.65, "AssocPr": 0.65, "ClsRe": 0, "ClsPr": 0}
    )
    assert average_teta(counts.values()) == counts[5].scores()


def test_by_hand_matched_without_overlap_at_threshold_0() -> None:
    # Track 8 is in a cluster in frame 0, so it takes part in frame 1, where it is matched although it is elsewhere.
    gt = objects((0, 1, [0, 0, 10, 10], 5), (1, 1, [0, 0, 10, 10], 5))
    predictions = objects((0, 8, [0, 0, 10, 10], 5), (1, 8, [50, 50, 60, 60], 5), (1, 9, [80, 0, 90, 10], 5))
    counts = count(video_of(gt, predictions, 2), [5])[5]
    assert counts.loc_tp.tolist() == [2] + [1] * 19
    assert counts.loc_fp.tolist() == [0] * 20
    assert counts.association.tolist() == [2] + [1 / 3] * 19


def test_by_hand_a_prediction_given_to_another_class_is_in_no_cluster() -> None:
    # It overlaps both objects with at least .5, and is given to the one it fits best, of class 6.
    gt = objects((0, 1, [0, 0, 10, 10], 5), (0, 2, [0, 0, 10, 7], 6))
    predictions = objects((0, 8, [0, 0, 10, 7], 5))
    counts = count(video_of(gt, predictions), [5, 6])
    assert counts[5].loc_fn.tolist() == [1] * 20 and counts[5].loc_fp.sum() == 0
    assert counts[6].loc_tp.tolist() == [1] * 20
    assert counts[6].cls_fn.tolist() == counts[5].cls_fp.tolist() == [1] * 10


def test_by_hand_exhaustive_classes() -> None:
    gt = objects((0, 1, [0, 0, 10, 10], 5))
    predictions = objects((0, 8, [0, 0, 10, 10], 5), (0, 9, [50, 50, 60, 60], 5), (0, 7, [70, 70, 80, 80], 6))
    made = video_of(gt, predictions)
    assert count(made, [5, 6])[5].cls_fp.sum() == 0
    counts = count(made, [5, 6], exhaustive=True)
    assert counts[5].cls_fp.tolist() == counts[6].cls_fp.tolist() == [1] * 10


@pytest.mark.parametrize("order", [[5, 6], [6, 5]])
def test_by_hand_exhaustive_classes_forget_earlier_false_positives(order: list[int]) -> None:
    # An object of class 5 is called 6, which has no cluster of its own: the tool keeps that only if 6 comes first.
    made = video_of(objects((0, 1, [0, 0, 10, 10], 5)), objects((0, 8, [0, 0, 10, 10], 6)))
    counts = count(made, order, exhaustive=True)
    assert counts[6].cls_fp.tolist() == ([1] * 10 if order == [5, 6] else [2] * 10)
    check([made], order, exhaustive=True)


@pytest.mark.parametrize("exhaustive", [False, True])
@pytest.mark.parametrize("lacking", ["gt", "predictions", "both"])
def test_empty_sides(lacking: str, exhaustive: bool) -> None:
    made = make_video(seed=1, labels=(1, 2))
    made = replace(made, gt=no_tracks()) if lacking != "predictions" else made
    made = replace(made, predictions=no_tracks()) if lacking != "gt" else made
    check([made], [1, 2, 3], exhaustive=exhaustive)
    counts = count(made, [1, 2, 3], exhaustive=exhaustive)
    assert all(np.isfinite(list(one.scores().values())).all() for one in counts.values())
    if lacking != "predictions":
        assert average_teta(counts.values()) is None
    assert count(made, []) == {}


def test_perfect_tracks_score_1() -> None:
    made = make_video(seed=3, labels=(1, 2))
    counts = count(replace(made, predictions=made.gt), [1, 2])
    assert average_teta(counts.values()) == dict.fromkeys(TetaCounts.none().scores(), 1.0)


def test_nothing_is_neutral_and_never_changes() -> None:
    some = count(make_video(seed=3), [1])[1]
    for total in (some + TetaCounts.none(), TetaCounts.none() + some):
        assert total.scores() == some.scores()
    assert TetaCounts.none().is_empty
    with pytest.raises(ValueError, match="read-only"):
        TetaCounts.none().loc_tp[0] = 1


@pytest.mark.parametrize("num_gt, num_pred", [(1, 1), (1, 9), (9, 1), (3, 5), (5, 3), (9, 12)])
def test_among_equals_the_choice_is_scipys(num_gt: int, num_pred: int) -> None:
    """Boxes of few kinds: many scores are equal, many are 0, and a lone object takes the first of its best."""
    rng = np.random.default_rng(num_gt * 100 + num_pred)
    cells = 40
    gt, pred = np.repeat(np.arange(cells), num_gt), np.repeat(np.arange(cells), num_pred)
    iou = rng.choice([0, 0, 0.25, 0.5], (cells, num_gt, num_pred))
    cell, row, column = np.nonzero(iou)
    problem = Problem(
        num_cells=cells,
        gt_cells=gt,
        gt_ids=np.arange(len(gt)),
        pred_cells=pred,
        pred_ids=np.arange(len(pred)),
        pair_gt=cell * num_gt + row,
        pair_pred=cell * num_pred + column,
        pair_iou=iou[cell, row, column],
    )
    matched = sorted(zip(*(part.tolist() for part in match(problem))))
    wanted = []
    for number, table in enumerate(iou):
        total = table.sum(0, keepdims=True) + table.sum(1, keepdims=True) - table
        share = table / np.where(total > 0, total, 1)
        rows, columns = linear_sum_assignment(-(share / (2 - share) * table))
        wanted += list(
            zip(
                (number * num_gt + rows).tolist(), (number * num_pred + columns).tolist(), table[rows, columns].tolist()
            )
        )
    assert matched == sorted(wanted)


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_video(seed=2, num_frames=20, labels=(1, 2), faults=Faults(doubled=0.3, switch=0.1))
    whole = count(made, [1, 2])
    monkeypatch.setattr(teta_matching, "_BLOCK", 1)
    for label, counts in count(made, [1, 2]).items():
        for name in TetaCounts.__dataclass_fields__:
            assert getattr(counts, name).tolist() == getattr(whole[label], name).tolist()


def test_thresholds_are_the_tools() -> None:
    assert len(THRESHOLDS) == 20 and THRESHOLDS[10] == 0.5
