"""motmetrics' rule: cases worked out by hand, and generated ones against the rule written with loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trackmill.pipeline.evaluation.metrics.bdd_clear import BddClearCounts, bdd_clear, inclusive_iou, keep_outside
from trackmill.pipeline.evaluation.overlaps import Overlaps, find_overlaps
from trackmill.pipeline.evaluation.tracks import make_tracks, no_tracks


def compared(truths: list[tuple], guesses: list[tuple]) -> Overlaps:
    """Overlaps of rows (frame, id, left): boxes of 10 x 10 on one line, exclusive edges."""
    sides = [
        make_tracks(
            [row[0] for row in rows], [row[1] for row in rows], np.array([[x, 0, x + 10, 10] for *_, x in rows], float)
        )
        if rows
        else no_tracks()
        for rows in (truths, guesses)
    ]
    return find_overlaps(*sides, num_frames=20)


# A track that jumps away in frame 2: counted as missed, then picked up again by another prediction.
SWITCH = ([(t, 1, 0) for t in range(5)], [(0, 7, 0), (1, 7, 0), (2, 7, 90), (3, 8, 0), (4, 8, 0)])


def test_switch_gap_and_false_alarm():
    counts = bdd_clear(compared(*SWITCH))
    assert counts.counts() == {"IDSW": 1, "Frag": 1, "FP": 1, "FN": 1, "MT": 1, "PT": 0, "ML": 0}
    assert counts.clear_scores() == {"MOTA": pytest.approx(1 - 3 / 5), "MOTP": 1}
    # Frames 0, 1 belong to prediction 7, frames 3, 4 to 8; only one of the two can be the identity.
    assert counts.identity_scores()["IDF1"] == pytest.approx(2 * 2 / 10)


@pytest.mark.parametrize(
    ("tracked", "of", "bucket"),
    [(4, 5, "MT"), (3, 5, "PT"), (1, 5, "PT"), (0, 5, "ML"), (8, 10, "MT"), (1, 6, "ML"), (2, 10, "PT")],
)
def test_share_of_frames_decides_how_tracked_an_object_is(tracked: int, of: int, bucket: str):
    counts = bdd_clear(compared([(t, 1, 0) for t in range(of)], [(t, 1, 0) for t in range(tracked)])).counts()
    assert {name for name in ("MT", "PT", "ML") if counts[name]} == {bucket}


def test_going_on_beats_a_better_overlap():
    # In frame 1 prediction 2 lies exactly on the object, but 1 still overlaps enough (IoU 8/12) and had it before.
    counts = bdd_clear(compared([(0, 1, 0), (1, 1, 0)], [(0, 1, 0), (1, 1, 2), (1, 2, 0)]))
    assert (counts.idsw, counts.matched, counts.predictions) == (0, 2, 3)
    assert counts.distance == pytest.approx(1 - 8 / 12)


def test_a_pair_is_remembered_over_frames_without_it():
    # The object is away in frame 1; TrackEval's CLEAR would have forgotten the pair by frame 2.
    counts = bdd_clear(compared([(0, 1, 0), (2, 1, 0)], [(0, 1, 0), (1, 5, 50), (2, 1, 2), (2, 2, 0)]))
    assert counts.distance == pytest.approx(1 - 8 / 12)
    assert (counts.idsw, counts.frag, counts.predictions - counts.matched) == (0, 0, 2)


def test_two_objects_with_the_same_last_partner():
    # Prediction 9 went from object 1 to object 2; when both overlap it again, the first in the file keeps it.
    truths = [(0, 1, 0), (1, 2, 0), (2, 1, 0), (2, 2, 3)]
    counts = bdd_clear(compared(truths, [(0, 9, 0), (1, 9, 0), (2, 9, 3)]))
    assert (counts.matched, counts.idsw) == (3, 0)
    assert counts.distance == pytest.approx(1 - 7 / 13)
    counts = bdd_clear(compared([truths[0], truths[1], truths[3], truths[2]], [(0, 9, 0), (1, 9, 0), (2, 9, 3)]))
    assert counts.distance == 0


def test_as_many_matches_as_possible_before_the_smallest_distance():
    # The closest pair (object 2, prediction 1) would leave object 1 and prediction 2 alone.
    counts = bdd_clear(compared([(0, 1, 3), (0, 2, 0)], [(0, 1, 0), (0, 2, -3)]))
    assert counts.matched == 2


def test_frames_of_other_objects_are_no_gap():
    counts = bdd_clear(compared([(0, 1, 0), (5, 1, 0), (5, 2, 50)], [(0, 1, 0), (5, 1, 0)]))
    assert (counts.frag, counts.mt, counts.ml) == (0, 1, 1)


@pytest.mark.parametrize(
    ("iou", "matched"),
    [(0.5, 1), (np.nextafter(0.5, 0), 1), (0.5 - 1e-12, 0)],  # 1 - IoU rounds the nearest number to .5
)
def test_the_distance_decides_not_the_overlap(iou: float, matched: int):
    overlaps = compared([(0, 1, 0)], [(0, 1, 0)])
    overlaps.pair_iou[:] = iou
    assert bdd_clear(overlaps).matched == matched


def test_nothing_to_divide_by_is_never_hidden():
    assert math.isnan(BddClearCounts.none().clear_scores()["MOTA"])
    only_false = bdd_clear(compared([], [(0, 1, 0)]))
    assert only_false.clear_scores()["MOTA"] == -math.inf
    assert math.isnan(only_false.clear_scores()["MOTP"])
    assert only_false.identity_scores()["IDF1"] == 0
    only_missed = bdd_clear(compared([(0, 1, 0), (1, 1, 0)], []))
    assert only_missed.clear_scores()["MOTA"] == 0
    assert only_missed.counts()["ML"] == 1


def test_counts_add_up():
    one = bdd_clear(compared(*SWITCH))
    both = sum([one, one], start=BddClearCounts.none())
    assert both.counts() == {name: 2 * count for name, count in one.counts().items()}
    assert both.clear_scores() == pytest.approx(one.clear_scores())
    assert both.matches is None


def test_only_unmatched_predictions_are_dropped_inside_regions():
    overlaps = compared([(0, 1, 0), (1, 1, 0)], [(0, 1, 0), (0, 2, 50), (0, 3, 1), (1, 4, 0), (1, 5, 40)])
    keep = keep_outside(overlaps, np.array([True, True, True, False, False]))
    # 1 has the object, 2 has nothing, 3 overlaps the object but 1 is closer; 4 and 5 are not inside.
    assert keep.tolist() == [True, False, False, True, True]


def test_inclusive_boxes_are_one_pixel_larger():
    # A box from 0 to 9 has ten pixels; half of them shared with one from 5 to 14: 50 / 150.
    a, b = np.array([[0.0, 0, 9, 9], [4, 4, 4, 4]]), np.array([[5.0, 0, 14, 9], [4, 4, 4, 4]])
    assert inclusive_iou(a, b).tolist() == [50 / 150, 1]
