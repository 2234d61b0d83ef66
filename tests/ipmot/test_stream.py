"""What a stream decides from frame to frame: births, deaths, what is output, and what is not."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.ipmot.scripted import Scripted, Seen, film  # noqa: E402
from trackmill.models.ipmot.stream import Stream, StreamObjects, StreamSettings  # noqa: E402

HERE = (0.25, 0.5, 0.2, 0.4)
THERE = (0.75, 0.5, 0.2, 0.4)


def stream_of(script: list[Seen], **settings: Any) -> Stream:
    model = Scripted(script)
    return Stream(model, StreamSettings.of(model.variant, **settings))  # type: ignore[arg-type]


def watched(script: list[Seen], **settings: Any) -> list[StreamObjects]:
    stream = stream_of(script, **settings)
    return [stream.step(image) for image in film(len(script))]


def ids(found: list[StreamObjects]) -> list[list[int]]:
    return [each.ids.tolist() for each in found]


def test_somebody_new_is_output_in_the_frame_where_they_appear() -> None:
    found = watched([{}, {2: (0.9, HERE)}, {2: (0.8, HERE), 0: (0.7, THERE)}])
    assert ids(found) == [[], [0], [0, 1]]
    assert found[1].indices.tolist() == [2], "detect query 2"
    assert found[2].indices.tolist() == [4, 0], "the track query behind the four detect queries, then detect query 0"
    np.testing.assert_allclose(found[2].scores, [0.8, 0.7], rtol=1e-6)
    # 100 x 200 pixels: cx 0.25, w 0.2 of 200, cy 0.5, h 0.4 of 100.
    np.testing.assert_allclose(found[1].boxes, [[30, 30, 70, 70]], rtol=1e-5)
    assert found[1].boxes.dtype == found[1].scores.dtype == np.float32 and found[1].ids.dtype == np.int64


def test_boxes_that_leave_the_frame_are_output_as_they_are() -> None:
    (found,) = watched([{0: (0.9, (0.0, 0.9, 0.2, 0.4))}])
    np.testing.assert_allclose(found.boxes, [[-20, 70, 20, 110]], rtol=1e-5)


@pytest.mark.parametrize(
    ("tolerance", "absent", "expected"),
    [
        (3, 2, 0),  # two misses, then seen again: the same identity
        (3, 3, 1),  # the third miss ends the track
        (1, 1, 1),  # one miss is enough
        (15, 14, 0),
        (15, 15, 1),
    ],
)
def test_a_track_ends_after_exactly_so_many_misses(tolerance: int, absent: int, expected: int) -> None:
    script: list[Seen] = [{1: (0.9, HERE)}, *[{}] * absent, {1: (0.9, HERE)}]
    found = watched(script, miss_tolerance=tolerance)
    assert ids(found) == [[0], *[[]] * absent, [expected]]


def test_misses_count_in_a_row() -> None:
    seen: Seen = {1: (0.9, HERE)}
    assert ids(watched([seen, {}, {}, seen, {}, {}, seen])) == [[0], [], [], [0], [], [], [0]]


@pytest.mark.parametrize(("score", "is_seen"), [(0.5, True), (0.4999, False)])
def test_the_threshold_is_of_the_score(score: float, is_seen: bool) -> None:
    born, kept = [{0: (score, HERE)}], [{0: (0.9, HERE)}, {0: (score, HERE)}]
    assert ids(watched(born)) == [[0] if is_seen else []]
    assert ids(watched(kept)) == [[0], [0] if is_seen else []]


def test_small_boxes_live_on_without_being_output() -> None:
    # 0.05 x 0.1 of 200 x 100 pixels are 10 x 10 = 100 square pixels, which is still too small.
    small, larger = (0.25, 0.5, 0.05, 0.1), (0.25, 0.5, 0.05, 0.102)
    script: list[Seen] = [{0: (0.9, small)}, {0: (0.9, small), 1: (0.9, THERE)}, {0: (0.9, larger), 1: (0.9, THERE)}]
    stream = stream_of(script)
    found = [stream.step(image) for image in film(3)]
    assert ids(found) == [[], [0], [1, 0]], "identities are counted as they are first output"
    assert stream.num_tracks == 2
    # It was found by a detect query once, and by its track query ever after.
    assert found[2].indices.tolist() == [4, 5]
    assert ids(watched(script, min_area=0))[0] == [0]


def test_nobody_at_all() -> None:
    stream = stream_of([{}] * 3)
    found = [stream.step(image) for image in film(3)]
    assert ids(found) == [[], [], []] and found[0].boxes.shape == (0, 4)
    assert stream.num_tracks == stream.num_live == 0


def test_frames_may_change_their_size() -> None:
    stream = stream_of([{0: (0.9, HERE)}] * 3)
    sizes = [(100, 200), (50, 40), (31, 333)]
    found = [stream.step(np.full((*size, 3), number, np.uint8)) for number, size in enumerate(sizes)]
    assert ids(found) == [[0], [0], [0]]
    for each, (height, width) in zip(found, sizes, strict=True):
        expected = np.array([0.15 * width, 0.3 * height, 0.35 * width, 0.7 * height])
        np.testing.assert_allclose(each.boxes[0], expected, rtol=1e-5)


def test_reset_begins_anew() -> None:
    script: list[Seen] = [{0: (0.9, HERE), 1: (0.9, THERE)}] * 3
    stream = stream_of(script)
    first = [stream.step(image) for image in film(3)]
    stream.reset()
    assert stream.num_live == stream.num_tracks == 0
    again = [stream.step(image) for image in film(3)]
    assert ids(first) == ids(again) == [[0, 1]] * 3
    assert again[0].indices.tolist() == [0, 1], "detect queries"


def test_live_tracks_are_bounded_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    # Four persons at most are found at once; each is seen in one frame, and others after them.
    script: list[Seen] = [
        {0: (0.9, HERE), 1: (0.8, THERE)},
        {2: (0.9, HERE), 3: (0.8, THERE)},
        {0: (0.9, HERE), 1: (0.9, HERE), 2: (0.9, HERE), 3: (0.9, HERE)},
    ]
    stream = stream_of(script, max_tracks=3, miss_tolerance=50)
    with caplog.at_level(logging.WARNING, "trackmill"):
        found = [stream.step(image) for image in film(3)]
    # Frame 1: 2 and 3 are seen, one of 0 and 1 is let go. Frame 2: that one is found, but there is no room.
    assert ids(found) == [[0, 1], [2, 3], [0, 2, 3]]
    assert stream.num_live == 3
    assert [each.message.partition(":")[0] for each in caplog.records] == ["more than 3 live tracks"]
    stream.reset()
    crowd = [{person: (0.6 + person / 10, HERE) for person in range(4)}]
    stream.model.script = crowd  # type: ignore[attr-defined]
    only = stream.step(film(1)[0])
    assert only.indices.tolist() == [1, 2, 3], "the least sure one does not begin"


def test_memory_stays_the_same_over_thousands_of_frames() -> None:
    """Somebody new all the time: what is held is who was seen within the tolerance."""
    model = Scripted([{number % 4: (0.9, HERE)} for number in range(256)])
    stream = Stream(model, StreamSettings.of(model.variant, miss_tolerance=1))  # type: ignore[arg-type]
    images = film(256, 8, 8)
    for number in range(2000):
        stream.step(images[number % 256])
    assert stream.num_live <= 2 and model.most_tracks <= 2
    assert stream.num_tracks == 0, "8 x 8 pixels are too small to be output"


def test_numbers_that_are_none_are_an_error_and_change_nothing() -> None:
    script: list[Seen] = [{0: (0.9, HERE)}, {0: (float("nan"), HERE)}, {0: (0.9, HERE)}]
    stream = stream_of(script)
    images = film(3)
    stream.step(images[0])
    with pytest.raises(ValueError, match="scripted: the network gives scores or boxes that are not finite"):
        stream.step(images[1])
    assert stream.step(images[2]).ids.tolist() == [0]


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((8, 8), np.uint8), r"\(8, 8\) uint8"),
        (np.zeros((8, 8, 1), np.uint8), r"\(8, 8, 1\) uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\) uint8"),
        (np.zeros((8, 8, 3), np.float32), r"\(8, 8, 3\) float32"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\) uint8"),
        ([[0]], "list"),
    ],
)
def test_what_is_no_picture_is_refused_and_changes_nothing(image: Any, found: str) -> None:
    stream = stream_of([{0: (0.9, HERE)}, {0: (0.9, HERE)}])
    with pytest.raises(ValueError, match=f"image: should be .* found {found}"):
        stream.step(image)
    assert stream.num_tracks == 0 and stream.num_live == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"miss_tolerance": 0}, "miss_tolerance must be at least 1, not 0"),
        ({"score_threshold": 1.5}, "score_threshold must be in 0..1, not 1.5"),
        ({"short_side": 900, "long_side": 800}, "long_side"),
        ({"max_tracks": 0}, "max_tracks must be at least 1"),
        ({"min_area": float("nan")}, "min_area must be 0 or more and finite, not nan"),
        ({"precision": "float16"}, "precision must be float32 or bfloat16, not 'float16'"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamSettings(**changes)
