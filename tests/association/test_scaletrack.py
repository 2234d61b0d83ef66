"""ScaleTrack's rule against a plain loop written from its description, and what that promises, one by one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tests.association.sequences import frame, random_sequence, update
from trackmill.models.association import ScaleTrackSettings, ScaleTrackTracker


class Plain:
    """The rule on lists, one pair at a time; the assignment is the best of all that there are."""

    def __init__(self, settings: ScaleTrackSettings) -> None:
        self.settings = settings
        self.tracks: dict[int, tuple[list[float], int]] = {}
        self.started = 0

    def update(self, boxes: Any, scores: Any, embeddings: Any, index: int) -> list[int]:
        ids = [-1] * len(boxes)
        taking = self.taking_part(boxes.tolist(), scores.tolist())
        looks = [normalised(embeddings[row].tolist()) for row in taking]
        self.forget(index, self.settings.memory_frames)
        known = list(self.tracks)
        for row, column in self.assignment(looks, [self.tracks[each][0] for each in known]):
            if dot(looks[row], self.tracks[known[column]][0]) >= self.settings.match_threshold:
                ids[taking[row]] = known[column]
        for row, look in zip(taking, looks, strict=True):
            if ids[row] < 0:
                ids[row], self.started = self.started, self.started + 1
                self.tracks[ids[row]] = (look, index)
            else:
                old, new = 1 - self.settings.momentum, self.settings.momentum
                mixed = [old * a + new * b for a, b in zip(self.tracks[ids[row]][0], look, strict=True)]
                self.tracks[ids[row]] = (normalised(mixed), index)
        return ids

    def taking_part(self, boxes: list[list[float]], scores: list[float]) -> list[int]:
        kept: list[int] = []
        for row in sorted(range(len(boxes)), key=lambda row: -scores[row]):
            if scores[row] >= np.float32(self.settings.min_score) and all(
                overlap(boxes[row], boxes[other]) <= self.settings.nms_iou for other in kept
            ):
                kept.append(row)
        return kept[: self.settings.max_detections]

    def assignment(self, looks: list[list[float]], tracks: list[list[float]]) -> list[tuple[int, int]]:
        few, many, turned = (looks, tracks, False) if len(looks) <= len(tracks) else (tracks, looks, True)
        best = min(
            itertools.permutations(range(len(many)), len(few)),
            key=lambda chosen: sum(1 - dot(few[i], many[j]) for i, j in enumerate(chosen)),
        )
        return [(j, i) if turned else (i, j) for i, j in enumerate(best)]

    def forget(self, index: int, frames: int) -> None:
        self.tracks = {each: kept for each, kept in self.tracks.items() if index - kept[1] <= frames}


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def normalised(values: list[float]) -> list[float]:
    length = math.sqrt(dot(values, values))
    return [value / length for value in values]


def overlap(a: list[float], b: list[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(wide, 0) * max(high, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@pytest.mark.parametrize("seed", range(12))
def test_a_plain_loop_gives_the_same(seed: int) -> None:
    settings = ScaleTrackSettings(min_score=0.3, max_detections=5, memory_frames=6, match_threshold=0.2)
    tracker, plain = ScaleTrackTracker(**settings.model_dump()), Plain(settings)
    for boxes, scores, _labels, embeddings, index in random_sequence(seed, scale=2.0, coarse=False, num_frames=20):
        found = np.full(len(boxes), -1)
        tracked = update(tracker, boxes, scores, _labels, embeddings, index)
        found[tracked.indices] = tracked.ids
        assert found.tolist() == plain.update(boxes, scores, embeddings, index)
    assert tracker.num_tracks == plain.started > 0


def ids(tracker: ScaleTrackTracker, rows: list[tuple[float, float, int, list[float]]], index: int) -> list[int]:
    """Identities in the order of the rows."""
    boxes, scores, labels, embeddings, _ = frame(rows, index)
    tracked = update(tracker, boxes, scores, labels, embeddings, index)
    found = np.full(len(rows), -1)
    found[tracked.indices] = tracked.ids
    return found.tolist()


def test_all_pairs_are_weighed_at_once() -> None:
    """The better detection would take the track that only the other one can continue."""
    tracker = ScaleTrackTracker()
    assert ids(tracker, [(0, 0.9, 0, [1, 0, 0]), (50, 0.9, 0, [0, 1, 0])], 0) == [0, 1]
    # The first is like track 0 at .77 and like track 1 at .64; the second is like track 0 alone, at .8.
    assert ids(tracker, [(0, 0.9, 0, [0.77, 0.64, 0]), (50, 0.8, 0, [0.8, 0, 0.6])], 1) == [1, 0]


def test_the_threshold_belongs_to_the_match_and_classes_do_not_count() -> None:
    for cosine, expected in ((0.5, 0), (0.499, 1)):
        tracker = ScaleTrackTracker()
        assert ids(tracker, [(0, 0.9, 0, [1, 0])], 0) == [0]
        assert ids(tracker, [(0, 0.9, 7, [4 * cosine, 4 * math.sqrt(1 - cosine**2)])], 1) == [expected]


def test_scores_and_overlaps_decide_who_takes_part() -> None:
    tracker = ScaleTrackTracker(max_detections=2)
    rows = [
        (0, 0.3, 0, [1, 0, 0]),  # a score of the threshold takes part, as third it would be one too many
        (100, 0.29, 0, [0, 1, 0]),
        (200, 0.9, 0, [0, 0, 1]),
        (204, 0.8, 1, [0, 1, 1]),  # IoU 6/14 with the one before, of another class
        (206, 0.7, 1, [1, 1, 0]),  # covered only by the one that is gone
    ]
    assert ids(tracker, rows, 0) == [-1, -1, 0, -1, 1]


def test_a_track_continues_for_ten_frames() -> None:
    for gap, expected in ((10, 0), (11, 1)):
        tracker = ScaleTrackTracker()
        assert ids(tracker, [(0, 0.9, 0, [1, 0])], 0) == [0]
        assert ids(tracker, [(0, 0.9, 0, [1, 0])], gap) == [expected]


def test_embeddings_of_any_length_give_the_same() -> None:
    frames = list(random_sequence(3, scale=1.0, coarse=False))
    ones, others = ScaleTrackTracker(), ScaleTrackTracker()
    for boxes, scores, labels, embeddings, index in frames:
        longer = embeddings * np.linspace(1, 40, len(embeddings), dtype=np.float32)[:, None]
        one = update(ones, boxes, scores, labels, embeddings, index)
        assert update(others, boxes, scores, labels, longer, index).ids.tolist() == one.ids.tolist()
