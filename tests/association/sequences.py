"""Sequences of detections for the trackers' tests, the official reference sequence, and the comparison with loops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume

from tests.fixtures import packed
from trackmill.models.association import Tracker
from trackmill.schemas.detections import make_detections
from trackmill.schemas.tracking import TrackedObjects

Frame = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]
"""Boxes (N, 4), scores (N,), labels (N,), embeddings (N, D), frame index."""

CLOSE = 1e-5
"""Relative difference of two similarities that float32 may decide either way."""


def update(tracker: Tracker, boxes: Any, scores: Any, labels: Any, embeddings: Any, frame_index: Any) -> TrackedObjects:
    """`Tracker.update` on columns, and what is tracked by it, best score first."""
    detections = make_detections(boxes, scores, labels)
    return TrackedObjects.of(detections, tracker.update(detections, embeddings, frame_index))


def frame(rows: list[tuple[float, float, int, list[float]]], index: int, boxes: Any = None) -> Frame:
    """A frame by hand: each row is the left edge of a 10 x 10 box, a score, a label and an embedding."""
    left = np.array([row[0] for row in rows], np.float32)
    drawn = np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=1) if boxes is None else np.float32(boxes)
    return (
        drawn.reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float32),
        index,
    )


def random_sequence(seed: int, *, scale: float, coarse: bool, num_frames: int = 12) -> Iterator[Frame]:
    """Up to eight objects that come and go, detected twice or not at all, with gaps of up to 30 frames.

    Args:
        seed: of everything.
        scale: of the embeddings; large ones have dot products far beyond what an exponential holds.
        coarse: whether all numbers are rounded so that scores, boxes and embeddings coincide often.
        num_frames: how many.
    """
    random = np.random.default_rng(seed)
    number = int(random.integers(1, 9))
    looks = random.normal(size=(number, 8)) * scale
    at, sides = random.uniform(0, 200, (number, 2)), random.uniform(10, 60, (number, 2))
    index = 0
    for _ in range(num_frames):
        index += int(random.choice([1, 1, 1, 2, 7, 30]))
        who = random.integers(0, number, int(random.choice([0, 1, number, number, number + 2])))
        embeddings = looks[who] + random.normal(size=(len(who), 8)) * 0.3 * scale
        boxes = np.concatenate([at[who], at[who] + sides[who]], axis=1) + random.normal(size=(len(who), 4)) * 4
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        scores = random.random(len(who))
        if coarse:
            step = 2.0 ** np.round(np.log2(scale) - 1)  # sums of products of such numbers are exact in float32
            embeddings, boxes, scores = np.round(embeddings / step) * step, np.round(boxes), np.round(scores, 1)
        labels = random.integers(-1 if random.random() < 0.2 else 0, 3, len(who))
        yield boxes.astype(np.float32), scores.astype(np.float32), labels, embeddings.astype(np.float32), index
        at += random.normal(size=(number, 2)) * 5


def agree_with_loops(tracker: Tracker, rule: Any, frames: Iterator[Frame]) -> None:
    """Compare identities frame by frame with a rule of `plain_rules`.

    Sequences in which rounding alone decides are left out (`assume`): those with a similarity as good as at a
    threshold, or two unlike tracks as good as equally similar. A threshold of 0 is no case for this comparison: a
    bi-softmax and a cosine that cancel may leave 6e-8 in one order of summing and 0 in another.
    """
    decided = []
    maxima = rule.maxima

    def watched(similarity: Any) -> Any:
        decided.append(clear_cut(similarity.double().numpy(), tracker.settings))
        return maxima(similarity)

    rule.maxima = watched
    for one in frames:
        found, expected = update(tracker, *one), rule.update(*one)
        assume(all(decided))
        assert found.ids.tolist() == expected.ids
        assert found.indices.tolist() == expected.indices
        assert tracker.num_tracks == rule.num_tracks
        assert tracker.alive_ids.tolist() == list(rule.tracks)


def clear_cut(similarity: np.ndarray, settings: Any) -> bool:
    """Whether no decision about this (N, T) matrix hangs on rounding; equal tracks tie exactly, which is none."""
    for threshold in (settings.match_score_thr, getattr(settings, "nms_conf_thr", 0)):
        near = np.abs(similarity - threshold) <= CLOSE * np.maximum(np.abs(similarity), threshold)
        if (near & (similarity != 0)).any():
            return False
    for row in similarity:
        ranks = np.argsort(row, kind="stable")
        for low, high in itertools.pairwise(ranks):
            close = row[high] > settings.match_score_thr and row[high] - row[low] <= CLOSE * row[high]
            if close and (similarity[:, low] != similarity[:, high]).any():
                return False
    return True


def reference_settings(kind: str) -> list[Any]:
    """The official runs of one tracker ("tao" or "bdd") as parameters: name, settings."""
    runs = packed.read_json("masa_tracker/settings.json")["settings"]
    return [pytest.param(name, run["params"], id=name) for name, run in runs.items() if run["tracker"] == kind]


def compare_with_reference(tracker: Tracker, run: str) -> None:
    """Track the official sequence, and compare everything the official tracker gave, exactly."""
    data = packed.read_arrays("masa_tracker/tracker_seq1.npz")
    ends = np.cumsum(data["in.counts"])
    fields = [data[f"in.{name}"] for name in ("bboxes", "scores", "labels", "embeds")]
    counts = data[f"out.{run}.counts"]
    expected_ends = np.cumsum(counts)
    for index, (end, count) in enumerate(zip(ends, data["in.counts"])):
        given = [field[end - count : end] for field in fields]
        found = update(tracker, *given, index)
        rows = slice(expected_ends[index] - counts[index], expected_ends[index])
        columns = {
            "ids": found.ids,
            "bboxes": found.objects.boxes,
            "labels": found.objects.labels,
            "scores": found.objects.scores,
        }
        for name, column in columns.items():
            assert np.array_equal(column, data[f"out.{run}.{name}"][rows]), (index, name)
        assert indices_fit(found, given[0])
    assert tracker.num_tracks == data[f"out.{run}.num_tracks"]
    assert tracker.alive_ids.tolist() == data[f"out.{run}.alive_ids_at_end"].tolist()


def indices_fit(found: TrackedObjects, boxes: np.ndarray) -> bool:
    """Whether `indices` leads back to the boxes that were given."""
    return np.array_equal(boxes[found.indices], found.objects.boxes)
