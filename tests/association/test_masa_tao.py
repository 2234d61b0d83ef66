"""MASA's TAO rule: the official tracker's identities, the rule as loops, and cases by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
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
from trackmill.models.association import MasaTaoTracker
from trackmill.models.association.similarity import bi_softmax, cosines, distance_gate, inverse_norms
from trackmill.models.association.suppression import overlaps

EASY = {"init_score_thr": 0.1, "obj_score_thr": 0.1, "distractor_score_thr": 0.0}
"""All detections take part."""

RIGHT, UP, LEFT = [4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [-4.0, 0.0, 0.0]

thresholds = st.fixed_dictionaries(
    {
        "init_score_thr": st.sampled_from([0.1, 0.3, 0.5]),
        "obj_score_thr": st.sampled_from([0.0, 0.2, 0.4, 0.6]),
        "match_score_thr": st.sampled_from([0.05, 0.3, 0.5, 0.6]),
        "memo_tracklet_frames": st.sampled_from([0, 1, 3, 10]),
        "memo_momentum": st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    }
)
distances = st.fixed_dictionaries(
    {"max_distance": st.sampled_from([-1, 0, 30, 100]), "fps": st.sampled_from([1, 10, 30])}
)
scales = st.sampled_from([0.3, 1.0, 3.0, 30.0, 1e4])


@pytest.mark.parametrize(("run", "params"), reference_settings("tao"))
def test_the_official_trackers_identities(run: str, params: dict[str, Any]) -> None:
    compare_with_reference(MasaTaoTracker(**params), run)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), common=thresholds, gate=distances, scale=scales, coarse=st.booleans())
def test_arrays_do_what_the_loops_do(
    seed: int, common: dict[str, Any], gate: dict[str, Any], scale: float, coarse: bool
) -> None:
    pytest.importorskip("torch")
    from tests.association.plain_rules import PlainTao

    frames = random_sequence(seed, scale=scale, coarse=coarse)
    agree_with_loops(MasaTaoTracker(**common, **gate), PlainTao(**common, **gate), frames)


def test_similarity_by_hand() -> None:
    # Products 0 and ln 3: softmax over tracks (1/4, 3/4), over the one detection (1, 1).
    products = np.log(np.array([[1, 3]], np.float32))
    assert bi_softmax(products)[0] == pytest.approx([(1 / 4 + 1) / 2, (3 / 4 + 1) / 2], rel=1e-6)
    # 3-4-5 triangles and a vector without length.
    rows, columns = np.array([[3, 4], [0, 0]], np.float32), np.array([[1, 0], [6, 8]], np.float32)
    norms = [inverse_norms((one * one).sum(axis=1)) for one in (rows, columns)]
    assert cosines(rows @ columns.T, *norms) == pytest.approx(np.array([[0.6, 1], [0, 0]]), rel=1e-6)


@pytest.mark.parametrize("spread", [1, 70, 90, 1e3, 1e30])
def test_bi_softmax_follows_its_definition_at_any_size(spread: float) -> None:
    products = (np.random.default_rng(0).normal(size=(7, 5)) * spread).astype(np.float32)
    exact = products.astype(np.float64)
    over_tracks = np.exp(exact - exact.max(axis=1, keepdims=True))
    over_detections = np.exp(exact - exact.max(axis=0))
    over_tracks /= over_tracks.sum(axis=1, keepdims=True)
    over_detections /= over_detections.sum(axis=0)
    with np.errstate(all="raise", under="ignore"):
        found = bi_softmax(products)
    assert found.dtype == np.float32
    assert found == pytest.approx((over_tracks + over_detections) / 2, rel=2e-5, abs=1e-30)


def test_the_gate_by_hand() -> None:
    at_zero, away = np.float32([[0, 0, 2, 2]] * 2), np.float32([[30, 40, 32, 42], [60, 80, 62, 82]])
    # 50 and 100 pixels away, one frame and six frames ago at 6 frames a second: reach 10 e and 10 e^6.
    found = distance_gate(at_zero, away, np.array([1, 6]), max_distance=10, fps=6)
    assert found == pytest.approx([np.exp(-(50 - 10 * np.e) / (100 / 6)), 1], rel=1e-5)
    long_ago = distance_gate(at_zero, away, np.array([1, 10**9]), max_distance=0, fps=1)
    assert long_ago == pytest.approx([np.exp(-0.5), np.exp(-1)], rel=1e-5)


def test_the_gate_parts_what_looks_alike() -> None:
    def second_ids(**gate: float) -> list[int]:
        tracker = MasaTaoTracker(**EASY, **gate)
        update(tracker, *frame([(0, 0.9, 0, RIGHT)], 0))
        return update(tracker, *frame([(900, 0.9, 0, RIGHT)], 1)).ids.tolist()

    assert second_ids() == [0]
    assert second_ids(max_distance=100, fps=30) == [1]


def test_overlaps_by_hand() -> None:
    boxes = np.float32([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 20, 20], [0, 0, 10, 5]])
    found = overlaps(boxes, boxes)
    assert found[0] == pytest.approx([1, 50 / 150, 0, 0.5])
    assert found[2].tolist() == [0, 0, 0, 0]
    assert np.array_equal(found, found.T)


def test_a_track_goes_on_with_its_like() -> None:
    tracker = MasaTaoTracker(**EASY)
    first = update(tracker, *frame([(0, 0.9, 1, RIGHT), (50, 0.8, 2, UP)], 0))
    second = update(tracker, *frame([(50, 0.7, 2, UP), (0, 0.6, 1, RIGHT), (90, 0.5, 3, LEFT)], 1))
    assert first.ids.tolist() == [0, 1]
    assert second.ids.tolist() == [1, 0, 2] and second.objects.labels.tolist() == [2, 1, 3]
    assert tracker.num_tracks == 3


def test_a_taken_track_is_not_taken_twice_and_the_next_best_is_looked_for() -> None:
    tracker = MasaTaoTracker(**EASY, match_score_thr=0.2)
    update(tracker, *frame([(0, 0.9, 0, [4, 0, 0]), (50, 0.8, 0, [3, 2, 0])], 0))
    # Both resemble track 0 most; the better score is served first, the other one takes track 1.
    found = update(tracker, *frame([(0, 0.6, 0, [4, 0, 0]), (50, 0.9, 0, [4, 0, 0])], 1))
    assert found.ids.tolist() == [0, 1] and found.indices.tolist() == [1, 0]


def test_ties_go_to_the_earlier_detection_and_the_earlier_track() -> None:
    tracker = MasaTaoTracker(**EASY, match_score_thr=0.2)
    same = [(50.0 * place, 0.9, 0, RIGHT) for place in range(4)]
    assert update(tracker, *frame(same, 0)).ids.tolist() == [0, 1, 2, 3]
    found = update(tracker, *frame(same, 1))
    assert found.ids.tolist() == [0, 1, 2, 3] and found.indices.tolist() == [0, 1, 2, 3]


def test_a_low_detection_over_a_better_one_is_dropped_even_if_that_was_dropped() -> None:
    boxes = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]  # neighbours overlap by 6/14, the outer ones by 2/18
    rows = [(0.0, score, label, RIGHT) for label, score in enumerate((0.9, 0.4, 0.3))]
    found = update(MasaTaoTracker(init_score_thr=0.1), *frame(rows, 0, boxes))
    assert found.indices.tolist() == [0]
    # Not from the threshold on, and only above the overlap.
    above = update(MasaTaoTracker(init_score_thr=0.1, distractor_score_thr=0.3), *frame(rows, 0, boxes))
    assert above.indices.tolist() == [0, 1, 2]
    apart = update(MasaTaoTracker(init_score_thr=0.1, distractor_nms_thr=0.5), *frame(rows, 0, boxes))
    assert apart.indices.tolist() == [0, 1, 2]


def test_thresholds_are_compared_in_float32() -> None:
    # float32(0.3) is greater than 0.3, and must not be above it.
    found = update(MasaTaoTracker(init_score_thr=0.3), *frame([(0, 0.3, 0, RIGHT), (50, 0.31, 0, UP)], 0))
    assert found.indices.tolist() == [1]


def test_a_negative_label_is_not_tracked_and_all_of_them_still_age_tracks() -> None:
    tracker = MasaTaoTracker(**EASY, memo_tracklet_frames=1)
    update(tracker, *frame([(0, 0.9, 0, RIGHT)], 0))
    assert len(update(tracker, *frame([(0, 0.9, -1, RIGHT)], 1))) == 0
    assert tracker.alive_ids.tolist() == []


def test_forgetting_comes_after_association() -> None:
    tracker = MasaTaoTracker(**EASY, memo_tracklet_frames=3)
    update(tracker, *frame([(0, 0.9, 0, RIGHT), (50, 0.9, 0, UP)], 0))
    # Both are still there after 100 frames without a word; the one that is not seen goes now.
    assert update(tracker, *frame([(0, 0.9, 0, RIGHT)], 100)).ids.tolist() == [0]
    assert tracker.alive_ids.tolist() == [0]
    # Empty frames do not age.
    update(tracker, *frame([], 110))
    assert tracker.alive_ids.tolist() == [0]


def test_the_memory_is_a_running_mean() -> None:
    # With momentum 0 track 0 keeps looking to the right, with 1 it has turned up.
    for momentum, expected in ((0.0, [1]), (1.0, [0])):
        tracker = MasaTaoTracker(**EASY, memo_momentum=momentum, match_score_thr=0.4)
        update(tracker, *frame([(0, 0.9, 0, RIGHT)], 0))
        assert update(tracker, *frame([(0, 0.9, 0, [1, 4, 0])], 1)).ids.tolist() == [0]
        found = update(tracker, *frame([(0, 0.9, 0, [-1, 4, 0])], 2))
        assert found.ids.tolist() == expected


def test_many_tracks_come_and_go() -> None:
    random = np.random.default_rng(1)
    tracker = MasaTaoTracker(**EASY, memo_tracklet_frames=2)
    looks = np.eye(300, dtype=np.float32) * 9
    known: dict[int, tuple[int, int]] = {}  # object: identity, last frame
    handed_out = 0
    for index in range(12):
        who = random.permutation(300)[: int(random.integers(1, 300))]
        boxes = np.stack([20 * who, 0 * who, 20 * who + 9, 0 * who + 9], axis=1)
        found = update(tracker, boxes, np.full(len(who), 0.9), np.zeros(len(who)), looks[who], index)
        expected = []
        for thing in who.tolist():
            if thing not in known:
                known[thing] = (handed_out, index)
                handed_out += 1
            known[thing] = (known[thing][0], index)
            expected.append(known[thing][0])
        known = {thing: (identity, last) for thing, (identity, last) in known.items() if index - last < 2}
        assert found.ids.tolist() == expected
        assert tracker.alive_ids.tolist() == sorted(identity for identity, _ in known.values())
    assert tracker.num_tracks == handed_out > 600
