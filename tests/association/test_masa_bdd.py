"""MASA's BDD rule: the official tracker's identities, the rule as loops, and cases by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.association.sequences import (
    agree_with_loops,
    compare_with_reference,
    frame,
    random_sequence,
    reference_settings,
    update,
)
from tests.association.test_masa_tao import LEFT, RIGHT, UP, scales, thresholds
from trackmill.models.association import MasaBddTracker

EASY = {"init_score_thr": 0.5, "obj_score_thr": 0.3}

of_bdd = st.fixed_dictionaries(
    {
        "memo_backdrop_frames": st.sampled_from([0, 1, 2]),
        "nms_conf_thr": st.sampled_from([0.3, 0.5, 0.8]),
        "nms_backdrop_iou_thr": st.sampled_from([0.1, 0.3]),
        "with_cats": st.booleans(),
        "match_metric": st.sampled_from(["bisoftmax", "softmax", "cosine"]),
    }
)


@pytest.mark.parametrize(("run", "params"), reference_settings("bdd"))
def test_the_official_trackers_identities(run: str, params: dict[str, Any]) -> None:
    compare_with_reference(MasaBddTracker(**params), run)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), common=thresholds, more=of_bdd, scale=scales, coarse=st.booleans())
def test_arrays_do_what_the_loops_do(
    seed: int, common: dict[str, Any], more: dict[str, Any], scale: float, coarse: bool
) -> None:
    pytest.importorskip("torch")
    from tests.association.plain_rules import PlainBdd

    frames = random_sequence(seed, scale=scale, coarse=coarse)
    agree_with_loops(MasaBddTracker(**common, **more), PlainBdd(**common, **more), frames)


def test_a_backdrop_holds_back_a_match_but_not_a_new_track() -> None:
    tracker = MasaBddTracker(**EASY)
    update(tracker, *frame([(0, 0.9, 0, UP), (50, 0.4, 0, RIGHT)], 0))  # the second is too weak: a backdrop
    found = update(tracker, *frame([(0, 0.9, 0, UP), (50, 0.9, 0, RIGHT)], 1))
    assert found.ids.tolist() == [0, 1]
    without = MasaBddTracker(**EASY, memo_backdrop_frames=0)
    update(without, *frame([(0, 0.9, 0, [3, 1, 0]), (50, 0.4, 0, RIGHT)], 0))
    assert update(without, *frame([(50, 0.9, 0, RIGHT)], 1)).ids.tolist() == [0]
    held = MasaBddTracker(**EASY)
    update(held, *frame([(0, 0.9, 0, [3, 1, 0]), (50, 0.4, 0, RIGHT)], 0))
    assert update(held, *frame([(50, 0.9, 0, RIGHT)], 1)).ids.tolist() == [1]


def test_backdrops_stay_for_their_frames_and_empty_frames_do_not_count() -> None:
    def third_ids(memo_backdrop_frames: int, between: list[tuple[float, float, int, list[float]]]) -> list[int]:
        tracker = MasaBddTracker(**EASY, memo_backdrop_frames=memo_backdrop_frames)
        update(tracker, *frame([(0, 0.9, 0, [3, 1, 0]), (50, 0.4, 0, RIGHT)], 0))
        update(tracker, *frame(between, 1))
        return update(tracker, *frame([(50, 0.9, 0, RIGHT)], 2)).ids.tolist()

    another = [(90.0, 0.4, 0, LEFT)]
    assert third_ids(1, another) == [0]
    assert third_ids(2, another) == [1]
    assert third_ids(1, []) == [1]


def test_a_confident_match_with_a_low_score_is_neither_track_nor_backdrop() -> None:
    tracker = MasaBddTracker(init_score_thr=0.2, obj_score_thr=0.3, nms_conf_thr=0.5, match_metric="cosine")
    update(tracker, *frame([(0, 0.9, 0, RIGHT)], 0))
    # Its like, with a score too low to go on with the track, though high enough for a new one.
    assert len(update(tracker, *frame([(50, 0.25, 0, RIGHT)], 1))) == 0
    assert update(tracker, *frame([(50, 0.9, 0, RIGHT)], 2)).ids.tolist() == [0]  # no backdrop in the way
    # Where the confidence does not reach, it begins a track.
    stricter = MasaBddTracker(init_score_thr=0.2, obj_score_thr=0.3, nms_conf_thr=0.9, match_metric="cosine")
    update(stricter, *frame([(0, 0.9, 0, RIGHT)], 0))
    assert update(stricter, *frame([(50, 0.25, 0, [4, 3, 0])], 1)).ids.tolist() == [1]


def test_a_track_that_was_just_taken_makes_no_duplicate() -> None:
    tracker = MasaBddTracker(init_score_thr=0.2, obj_score_thr=0.3, match_metric="cosine")
    update(tracker, *frame([(0, 0.9, 0, RIGHT)], 0))
    found = update(tracker, *frame([(0, 0.9, 0, RIGHT), (50, 0.25, 0, RIGHT)], 1))
    assert found.ids.tolist() == [0, 1]


def test_what_covers_what() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 4], [20, 0, 30, 10]]
    # Overlaps with the first: 0.8, 0.5, 0.4, none; the third of 0.25 with the second is 0.625.
    rows = [(0.0, score, 0, UP) for score in (0.9, 0.8, 0.7, 0.2, 0.1)]
    tracker = MasaBddTracker(init_score_thr=0.0, obj_score_thr=0.3)
    assert update(tracker, *frame(rows, 0, boxes)).indices.tolist() == [0, 2, 4]
    looser = MasaBddTracker(init_score_thr=0.0, obj_score_thr=0.3, nms_class_iou_thr=0.9, nms_backdrop_iou_thr=0.85)
    assert update(looser, *frame(rows, 0, boxes)).indices.tolist() == [0, 1, 2, 3, 4]


def test_a_covered_detection_becomes_no_backdrop() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5]]  # overlap 0.5: both stay, and the second is not remembered
    tracker = MasaBddTracker(**EASY)
    update(tracker, *frame([(0, 0.9, 0, [3, 1, 0]), (0, 0.4, 0, RIGHT)], 0, boxes))
    assert update(tracker, *frame([(50, 0.9, 0, RIGHT)], 1)).ids.tolist() == [0]


def test_labels_part_what_looks_alike() -> None:
    for with_cats, expected in ((False, [0]), (True, [1])):
        tracker = MasaBddTracker(**EASY, with_cats=with_cats)
        update(tracker, *frame([(0, 0.9, 3, RIGHT)], 0))
        assert update(tracker, *frame([(0, 0.9, 4, RIGHT)], 1)).ids.tolist() == expected


def test_without_tracks_backdrops_hold_nothing_back() -> None:
    tracker = MasaBddTracker(**EASY)
    assert len(update(tracker, *frame([(0, 0.4, 0, RIGHT)], 0))) == 0
    assert update(tracker, *frame([(0, 0.9, 0, RIGHT)], 1)).ids.tolist() == [0]


@pytest.mark.parametrize("metric", ["bisoftmax", "softmax", "cosine"])
def test_metrics(metric: str) -> None:
    tracker = MasaBddTracker(**EASY, match_metric=metric)
    update(tracker, *frame([(0, 0.9, 0, RIGHT), (50, 0.9, 0, UP)], 0))
    # A detection like neither track, alone: softmax gives both tracks 1/2, bi-softmax 3/4, the cosine 0.
    found = update(tracker, *frame([(50, 0.9, 0, [0, 0, 4])], 1))
    assert found.ids.tolist() == ([0] if metric == "bisoftmax" else [2])
    with pytest.raises(ValueError, match=r"match_metric"):
        MasaBddTracker(match_metric="euclid")
