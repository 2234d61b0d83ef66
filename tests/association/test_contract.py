"""What every tracker must do, however it associates; a new tracker is one more row in `MAKERS`."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.association.sequences import Frame, random_sequence
from trackmill.models.association import TRACKERS, MasaBddTracker, MasaTaoTracker, Tracked, Tracker

MAKERS: dict[str, Callable[[], Tracker]] = {
    "masa_tao": lambda: MasaTaoTracker(init_score_thr=0.2, obj_score_thr=0.1),
    "masa_tao-gate": lambda: MasaTaoTracker(init_score_thr=0.2, obj_score_thr=0.1, max_distance=50, fps=30),
    "masa_bdd": lambda: MasaBddTracker(init_score_thr=0.2, obj_score_thr=0.1),
    "masa_bdd-cosine": lambda: MasaBddTracker(init_score_thr=0.2, obj_score_thr=0.1, match_metric="cosine"),
}
ARGUMENTS = ("boxes", "scores", "labels", "embeddings")


@pytest.fixture(params=MAKERS)
def tracker(request: pytest.FixtureRequest) -> Tracker:
    return MAKERS[request.param]()


def video(seed: int = 5) -> list[Frame]:
    """Frames, some of them without detections."""
    frames = list(random_sequence(seed, scale=2.0, coarse=False, num_frames=15))
    assert {len(boxes) == 0 for boxes, *_ in frames} == {True, False}
    return frames


def run(tracker: Tracker, frames: list[Any]) -> list[Tracked]:
    return [tracker.update(*one) for one in frames]


def same(a: list[Tracked], b: list[Tracked]) -> bool:
    """Whether two runs agree in everything, to the bit."""
    return len(a) == len(b) and all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for one, other in zip(a, b)
        for name in ("ids", "boxes", "labels", "scores", "indices")
    )


def one_frame(number: int = 3, index: int = 0) -> dict[str, Any]:
    """Arguments of `update` that are in order."""
    left = 50 * np.arange(number)
    return {
        "boxes": np.stack([left, 0 * left, left + 9, 0 * left + 9], axis=1).astype(np.float32),
        "scores": np.linspace(0.9, 0.8, number, dtype=np.float32),
        "labels": np.arange(number),
        "embeddings": np.eye(number, 4, dtype=np.float32) * 5,
        "frame_index": index,
    }


def test_registered_trackers_are_tested() -> None:
    assert set(TRACKERS) == {name.split("-")[0] for name in MAKERS}
    assert all(kind.name == name for name, kind in TRACKERS.items())


def test_results_are_well_formed(tracker: Tracker) -> None:
    handed_out = 0
    for boxes, scores, labels, embeddings, index in video():
        alive = tracker.alive_ids
        found = tracker.update(boxes, scores, labels, embeddings, index)
        number = len(found)
        types = {"ids": np.int64, "labels": np.int64, "indices": np.int64, "scores": np.float32, "boxes": np.float32}
        for name, dtype in types.items():
            assert getattr(found, name).dtype == dtype
            assert getattr(found, name).shape == ((number, 4) if name == "boxes" else (number,))
        assert len(set(found.ids.tolist())) == len(set(found.indices.tolist())) == number
        assert (boxes[found.indices] == found.boxes).all()
        assert (scores[found.indices] == found.scores).all() and (np.diff(found.scores) <= 0).all()
        assert (labels[found.indices] == found.labels).all()
        new = set(found.ids.tolist()) - set(alive.tolist())
        assert new == set(range(handed_out, tracker.num_tracks))
        handed_out = tracker.num_tracks
        assert (np.diff(tracker.alive_ids) > 0).all()
    assert handed_out > 0


def test_reset_is_a_new_tracker(tracker: Tracker) -> None:
    first = run(tracker, video(7))
    tracker.reset()
    assert tracker.num_tracks == 0 and tracker.alive_ids.tolist() == []
    assert same(run(tracker, video(7)), first)
    assert any(len(one) for one in first)


def test_another_tracker_gives_the_same(tracker: Tracker) -> None:
    other = copy.deepcopy(tracker)
    assert same(run(tracker, video()), run(other, video()))


@pytest.mark.parametrize(
    "empty",
    [
        (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros((0, 8))),
        (np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros((0, 3))),
        ([], [], [], []),
    ],
)
def test_frames_without_detections(tracker: Tracker, empty: tuple[Any, ...]) -> None:
    assert len(tracker.update(*empty, 0)) == 0
    frames = video()
    tracker.update(*frames[0][:4], 1)
    alive = tracker.alive_ids.tolist()
    nothing = tracker.update(*empty, 2)
    assert nothing.boxes.shape == (0, 4) and nothing.ids.shape == nothing.indices.shape == (0,)
    assert tracker.alive_ids.tolist() == alive


def test_one_detection(tracker: Tracker) -> None:
    assert [tracker.update(**one_frame(1, index)).ids.tolist() for index in range(3)] == [[0], [0], [0]]


def test_frames_must_go_upwards(tracker: Tracker) -> None:
    tracker.update(**one_frame(index=4))
    for index in (4, 3):
        with pytest.raises(ValueError, match=rf"frame_index {index} does not come after 4.*reset"):
            tracker.update(**one_frame(index=index))
    tracker.update(**one_frame(index=9))
    tracker.reset()
    tracker.update(**one_frame(index=0))


@pytest.mark.parametrize("index", [1.5, "1", None, -1, 2**63])
def test_a_frame_index_is_a_whole_number(tracker: Tracker, index: Any) -> None:
    with pytest.raises(ValueError, match="frame_index"):
        tracker.update(**one_frame(index=index))
    tracker.update(**one_frame(index=np.int64(3)))


WRONG: list[tuple[str, Any, str]] = [
    ("boxes", np.nan, r"boxes: row 1 is .*nan"),
    ("boxes", np.inf, r"boxes: row 1 is .*inf"),
    ("boxes", 1e30, r"boxes: row 1 is"),
    ("scores", np.nan, r"scores: row 1 is nan"),
    ("scores", -np.inf, r"scores: row 1 is -inf"),
    ("labels", np.nan, r"labels must be whole numbers; row 1"),
    ("labels", 0.5, r"labels must be whole numbers; row 1"),
    ("embeddings", np.nan, r"embeddings: row 1 is not finite"),
    ("embeddings", np.inf, r"embeddings: row 1 is not finite"),
    ("embeddings", 1e30, r"embeddings: row 1 .*longer than"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=[f"{name}-{value}" for name, value, _ in WRONG])
def test_values_that_are_no_use_are_refused_and_change_nothing(
    tracker: Tracker, name: str, value: float, message: str
) -> None:
    other = copy.deepcopy(tracker)
    tracker.update(**one_frame())
    bad = one_frame(index=1)
    bad[name] = bad[name].astype(np.float64)
    bad[name][1] = value
    with pytest.raises(ValueError, match=message):
        tracker.update(**bad)
    other.update(**one_frame())
    assert same([tracker.update(**one_frame(index=1))], [other.update(**one_frame(index=1))])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("boxes", np.zeros((3, 5)), r"boxes must have shape \(N, 4\), not \(3, 5\)"),
        ("boxes", np.zeros(4), r"boxes must have shape"),
        ("boxes", [["a"] * 4] * 3, r"boxes must be numbers"),
        ("boxes", [[0, 0, 1, 1], [0]], r"boxes: rows of different lengths"),
        ("scores", np.zeros(2), r"scores are of 2 detections, boxes of 3"),
        ("scores", np.zeros((3, 1)), r"scores must have shape"),
        ("labels", np.zeros(4), r"labels are of 4 detections, boxes of 3"),
        ("embeddings", np.zeros((2, 4)), r"embeddings are of 2 detections, boxes of 3"),
        ("embeddings", np.zeros(3), r"embeddings must have shape \(N, D\)"),
        ("embeddings", np.zeros((3, 0)), r"embeddings must have"),
        ("embeddings", [], r"embeddings"),
        ("boxes", [], r"scores are of 3 detections, boxes of 0"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(tracker: Tracker, name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tracker.update(**(one_frame() | {name: value}))


def test_embeddings_keep_their_dimension(tracker: Tracker) -> None:
    tracker.update(**one_frame())
    longer = one_frame(index=1)
    longer["embeddings"] = np.ones((3, 7), np.float32)
    with pytest.raises(ValueError, match="embeddings have 7 dimensions, those of earlier frames had 4"):
        tracker.update(**longer)
    tracker.reset()
    tracker.update(**longer)


def test_the_input_is_left_alone_and_not_kept(tracker: Tracker) -> None:
    frames = video()
    expected = run(copy.deepcopy(tracker), frames)
    found = []
    for one in frames:
        given = copy.deepcopy(one)
        tracked = tracker.update(*given)
        assert all((a == b).all() for a, b in zip(given[:4], one[:4]))
        found.append(copy.deepcopy(tracked))
        for array in (*given[:4], tracked.boxes, tracked.scores, tracked.labels, tracked.ids, tracked.indices):
            array[...] = 0
    assert same(found, expected)


def as_torch(array: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(array)


CONVERSIONS: dict[str, Callable[[str, np.ndarray], Any]] = {
    "float64": lambda name, array: array.astype(np.float64),
    "int32 labels": lambda name, array: array.astype(np.int32) if name == "labels" else array,
    "lists": lambda name, array: array.tolist(),
    "strided": lambda name, array: np.repeat(array, 2, axis=0)[::2],
    "Fortran order": lambda name, array: np.asfortranarray(array),
    "torch": lambda name, array: as_torch(array),
    "torch with gradients": lambda name, array: (
        as_torch(array).requires_grad_() if name == "embeddings" else as_torch(array)
    ),
    "torch float64": lambda name, array: as_torch(array).double(),
    "torch transposed": lambda name, array: as_torch(np.ascontiguousarray(array.T)).T if array.ndim == 2 else array,
}


@pytest.mark.parametrize("conversion", CONVERSIONS.values(), ids=CONVERSIONS)
def test_types_and_layouts_do_not_matter(tracker: Tracker, conversion: Callable[[str, np.ndarray], Any]) -> None:
    frames = video()
    expected = run(copy.deepcopy(tracker), frames)
    converted = [(*(conversion(name, array) for name, array in zip(ARGUMENTS, one)), one[4]) for one in frames]
    assert same(run(tracker, converted), expected)


def test_half_precision_counts_as_its_value(tracker: Tracker) -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.float16, torch.bfloat16):
        halves = [[*map(as_torch, one[:4])] for one in video()]
        halves = [[boxes, scores, labels, embeddings.to(dtype)] for boxes, scores, labels, embeddings in halves]
        rounded = [[boxes, scores, labels, embeddings.float()] for boxes, scores, labels, embeddings in halves]
        tracker.reset()
        other = copy.deepcopy(tracker)
        found = [tracker.update(*one, index) for index, one in enumerate(halves)]
        assert same(found, [other.update(*one, index) for index, one in enumerate(rounded)])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e4, 1e15])
def test_embeddings_of_any_length_are_fine(tracker: Tracker, scale: float) -> None:
    for index in range(3):
        given = one_frame(3, index)
        given["embeddings"] = given["embeddings"] * np.float32(scale)
        found = tracker.update(**given)
        assert len(found) == 3 and np.isfinite(found.scores).all()


def test_duplicates_do_no_harm(tracker: Tracker) -> None:
    for index in range(3):
        given = one_frame(3, index)
        doubled = {name: np.repeat(given[name], 2, axis=0) for name in ARGUMENTS}
        found = tracker.update(**doubled, frame_index=index)
        assert len(found) == len(set(found.ids.tolist())) > 0


def test_low_scores_begin_nothing(tracker: Tracker) -> None:
    for index in range(3):
        given = one_frame(3, index)
        assert len(tracker.update(**(given | {"scores": np.zeros(3)}))) == 0
    assert tracker.num_tracks == 0


@pytest.mark.parametrize("kind", TRACKERS.values(), ids=TRACKERS)
def test_settings_are_checked(kind: type[Tracker]) -> None:
    with pytest.raises(ValueError, match=r"unknown key 'match_score_thresh'; did you mean 'match_score_thr'\?"):
        kind(match_score_thresh=0.5)
    for name, value in (
        ("memo_momentum", 1.5),
        ("memo_tracklet_frames", -1),
        ("match_score_thr", -0.1),
        ("init_score_thr", float("nan")),
    ):
        with pytest.raises(ValueError, match=name):
            kind(**{name: value})
    assert kind(memo_momentum=np.float64(0.5)).settings.memo_momentum == 0.5


@pytest.mark.parametrize(("name", "value"), [("max_distance", -2), ("fps", 0)])
def test_settings_of_the_gate_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        MasaTaoTracker(**{name: value})


def test_importing_trackers_needs_no_torch() -> None:
    code = "import sys, trackmill.models.association; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
