"""Who learns whom, and who goes on: tables of situations, one row each."""

from __future__ import annotations

import numpy as np
import pytest

from trackmill.models.ipmot.assignment import LayerAssignment, assign, keep, newborns, overlaps_of
from trackmill.models.ipmot.queries import FALSE_POSITIVE

NOBODY = FALSE_POSITIVE


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def diagonal(num_detect: int, num_people: int, layers: int = 1) -> np.ndarray:
    """Detect query i costs least for person i."""
    costs = np.ones((layers, num_detect, num_people), dtype=np.float32)
    for place in range(min(num_detect, num_people)):
        costs[:, place, place] = 0
    return costs


def pairs(layer: LayerAssignment) -> dict[int, int]:
    return dict(zip(layer.query.tolist(), layer.target.tolist(), strict=True))


@pytest.mark.parametrize(
    ("balanced", "people", "tracks", "expected"),
    [
        # Four detect queries, 0..3; track queries are 4, 5, ...
        (True, (7, 8), (), {0: 0, 1: 1}),  # nobody is tracked: both ways alike
        (False, (7, 8), (), {0: 0, 1: 1}),
        (True, (7, 8), (8,), {0: 0, 1: 1, 4: 1}),  # a tracked person has two positives
        (False, (7, 8), (8,), {0: 0, 4: 1}),  # or its track alone
        (True, (7, 8), (9,), {0: 0, 1: 1}),  # the tracked person is not there: its track is background
        (False, (7, 8), (9,), {0: 0, 1: 1}),
        (True, (7,), (NOBODY, 7), {0: 0, 5: 0}),  # a kept false positive is background
        (False, (7,), (NOBODY, 7), {5: 0}),
        (True, (), (7,), {}),  # nobody is there
        (False, (), (7,), {}),
        (True, (1, 2, 3, 4, 5), (5,), {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}),  # five people, four detect queries
        (False, (1, 2, 3, 4, 5), (5,), {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}),
    ],
)
def test_table_of_positives(
    balanced: bool, people: tuple[int, ...], tracks: tuple[int, ...], expected: dict[int, int]
) -> None:
    layers = assign(diagonal(4, len(people), layers=2), ints(*people), ints(*tracks), balanced=balanced)
    assert [pairs(layer) for layer in layers] == [expected] * 2


def test_more_people_than_queries_leaves_the_dearest_over() -> None:
    costs = np.array([[[3, 1, 2], [1, 3, 9]]], dtype=np.float32)
    (layer,) = assign(costs, ints(7, 8, 9), ints(), balanced=True)
    assert pairs(layer) == {0: 1, 1: 0}


def test_layers_are_matched_apart() -> None:
    costs = np.stack([np.eye(2), 1 - np.eye(2)]).astype(np.float32)
    layers = assign(costs, ints(7, 8), ints(), balanced=False)
    assert [pairs(layer) for layer in layers] == [{0: 1, 1: 0}, {0: 0, 1: 1}]


def test_separate_first_layers_detect_everybody_and_know_no_track() -> None:
    layers = assign(diagonal(3, 2, layers=2), ints(7, 8), ints(8), balanced=False, separate_first_layers=1)
    assert [pairs(layer) for layer in layers] == [{0: 0, 1: 1}, {0: 0, 3: 1}]


def test_costs_that_are_no_numbers_are_no_crash() -> None:
    costs = diagonal(3, 2)
    costs[0, 0, 0] = np.nan
    costs[0, 1, 1] = np.inf
    (layer,) = assign(costs, ints(7, 8), ints(), balanced=True)
    assert set(pairs(layer).values()) == {0, 1}


def test_newborns_are_people_without_a_track() -> None:
    (layer,) = assign(diagonal(4, 3), ints(7, 8, 9), ints(8, NOBODY), balanced=True)
    assert newborns(layer, ints(7, 8, 9), ints(8, NOBODY)).tolist() == [True, False, True, False]


# One detect query (0) and one track query (1), which holds `track`; the person 7 is there, or nobody.
@pytest.mark.parametrize(
    ("track", "there", "overlap", "score", "options", "expected"),
    [
        (7, True, 0.5, 0.1, {}, [7]),  # on its person, however unsure: labels decide
        (7, True, 0.49, 0.9, {}, [NOBODY]),  # off its person and sure: a false positive
        (7, True, 0.49, 0.4, {}, []),  # off its person and unsure: ends
        (7, True, 0.49, 0.4, {"released": "always"}, [NOBODY]),  # MeMOTR lets it go on for a frame
        (7, False, 0.0, 0.1, {}, [7]),  # its person is hidden: it waits
        (NOBODY, False, 0.0, 0.51, {}, [NOBODY]),  # a false positive goes on while it is sure
        (NOBODY, False, 0.0, 0.5, {}, []),  # and not at the threshold
    ],
)
def test_table_of_tracks_that_go_on(
    track: int, there: bool, overlap: float, score: float, options: dict[str, str], expected: list[int]
) -> None:
    query, target = (ints(1), ints(0)) if there and track == 7 else (ints(), ints())
    last = LayerAssignment(query=query, target=target)
    overlaps = np.full(len(query), overlap, dtype=np.float32)
    scores = np.array([0.2, score], dtype=np.float32)
    people = ints(7) if there else ints()
    kept = keep(last, overlaps, scores, people, ints(track), **options)  # type: ignore[arg-type]
    assert kept.ids.tolist() == expected
    assert kept.query.tolist() == [1] * len(expected)


# Two detect queries; query 0 is matched to person 7, who is held by a track (2) or by none.
@pytest.mark.parametrize(
    ("tracked", "overlap", "scores", "options", "expected"),
    [
        (False, 0.1, (0.1, 0.1), {}, {0: 7}),  # a newborn, however unsure and far off
        (False, 0.1, (0.1, 0.1), {"newborn_iou_threshold": 0.5}, {}),
        (False, 0.1, (0.9, 0.1), {"newborn_iou_threshold": 0.5}, {0: NOBODY}),
        (False, 0.1, (0.1, 0.1), {"newborn_iou_threshold": 0.5, "released": "always"}, {0: NOBODY}),
        (True, 0.9, (0.9, 0.1), {}, {2: 7}),  # a duplicate never becomes a track, however sure
        (False, 0.9, (0.9, 0.6), {}, {0: 7, 1: NOBODY}),  # an unmatched one that is sure: a false positive
    ],
)
def test_table_of_detect_queries_that_go_on(
    tracked: bool, overlap: float, scores: tuple[float, float], options: dict[str, object], expected: dict[int, int]
) -> None:
    track_ids = ints(7) if tracked else ints()
    last = LayerAssignment(query=ints(0, 2) if tracked else ints(0), target=ints(0, 0) if tracked else ints(0))
    overlaps = np.full(len(last.query), overlap, dtype=np.float32)
    every = np.array([*scores, 0.9] if tracked else scores, dtype=np.float32)
    kept = keep(last, overlaps, every, ints(7), track_ids, **options)  # type: ignore[arg-type]
    assert dict(zip(kept.query.tolist(), kept.ids.tolist(), strict=True)) == expected


def test_tracks_come_first_then_newborns_then_false_positives() -> None:
    last = LayerAssignment(query=ints(1, 3), target=ints(1, 0))
    kept = keep(last, np.ones(2, np.float32), np.array([0.9, 0.2, 0.1, 0.9], np.float32), ints(7, 8), ints(7))
    assert kept.query.tolist() == [3, 1, 0]
    assert kept.ids.tolist() == [7, 8, NOBODY]


def test_overlap_of_boxes_that_leave_the_picture_or_are_nothing() -> None:
    boxes = np.array([[0, 0, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0, 0]], dtype=np.float32)
    targets = np.array([[0.2, 0, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0, 0]], dtype=np.float32)
    assert overlaps_of(boxes, targets) == pytest.approx([1 / 3, 1, 0])
