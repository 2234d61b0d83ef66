"""What every tracker must do, however it associates; a new tracker is one more row in `MAKERS`."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.association.sequences import Frame, random_sequence, update
from trackmill.models.association import TRACKERS, MasaBddTracker, MasaTaoTracker, ScaleTrackTracker, Tracker
from trackmill.schemas.detections import make_detections
from trackmill.schemas.tracking import TrackedObjects

MAKERS: dict[str, Callable[[], Tracker]] = {
    "masa_tao": lambda: MasaTaoTracker(init_score_thr=0.2, obj_score_thr=0.1),
    "masa_tao-gate": lambda: MasaTaoTracker(init_score_thr=0.2, obj_score_thr=0.1, max_distance=50, fps=30),
    "masa_bdd": lambda: MasaBddTracker(init_score_thr=0.2, obj_score_thr=0.1),
    "masa_bdd-cosine": lambda: MasaBddTracker(init_score_thr=0.2, obj_score_thr=0.1, match_metric="cosine"),
    "scaletrack": lambda: ScaleTrackTracker(min_score=0.2),
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


def run(tracker: Tracker, frames: list[Any]) -> list[TrackedObjects]:
    return [update(tracker, *one) for one in frames]


def same(a: list[TrackedObjects], b: list[TrackedObjects]) -> bool:
    """Whether two runs agree in everything, to the bit."""
    return len(a) == len(b) and all(
        one.ids.tobytes() == other.ids.tobytes()
        and one.indices.tobytes() == other.indices.tobytes()
        and one.objects.boxes.tobytes() == other.objects.boxes.tobytes()
        for one, other in zip(a, b)
    )


def one_frame(number: int = 3, index: int = 0) -> dict[str, Any]:
    """Columns of a frame that are in order."""
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
        ids = tracker.update(make_detections(boxes, scores, labels), embeddings, index)
        assert ids.dtype == np.int64
        assert ids.shape == (len(boxes),)
        assert (ids >= -1).all()
        given = ids[ids >= 0].tolist()
        assert len(set(given)) == len(given)
        assert set(given) - set(alive.tolist()) == set(range(handed_out, tracker.num_tracks))
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
    assert len(update(tracker, *empty, 0)) == 0
    frames = video()
    update(tracker, *frames[0][:4], 1)
    alive = tracker.alive_ids.tolist()
    nothing = tracker.update(make_detections(*empty[:3]), empty[3], 2)
    assert (nothing.shape, nothing.dtype) == ((0,), np.int64)
    assert tracker.alive_ids.tolist() == alive


def test_one_detection(tracker: Tracker) -> None:
    assert [update(tracker, **one_frame(1, index)).ids.tolist() for index in range(3)] == [[0], [0], [0]]


def test_frames_must_go_upwards(tracker: Tracker) -> None:
    update(tracker, **one_frame(index=4))
    for index in (4, 3):
        with pytest.raises(ValueError, match=rf"frame_index {index} does not come after 4.*reset"):
            update(tracker, **one_frame(index=index))
    update(tracker, **one_frame(index=9))
    tracker.reset()
    update(tracker, **one_frame(index=0))


@pytest.mark.parametrize("index", [1.5, "1", None, -1, 2**63])
def test_a_frame_index_is_a_whole_number(tracker: Tracker, index: Any) -> None:
    with pytest.raises(ValueError, match="frame_index"):
        update(tracker, **one_frame(index=index))
    update(tracker, **one_frame(index=np.int64(3)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "is not finite"), (np.inf, "is not finite"), (1e30, "longer than")]
)
def test_embeddings_that_are_no_use_are_refused_and_change_nothing(
    tracker: Tracker, value: float, message: str
) -> None:
    other = copy.deepcopy(tracker)
    update(tracker, **one_frame())
    bad = one_frame(index=1)
    bad["embeddings"][1] = value
    with pytest.raises(ValueError, match=f"embeddings: row 1 .*{message}"):
        update(tracker, **bad)
    update(other, **one_frame())
    assert same([update(tracker, **one_frame(index=1))], [update(other, **one_frame(index=1))])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 4)), r"embeddings are of 2 detections, boxes of 3"),
        (np.zeros(3), r"embeddings must have shape \(N, D\)"),
        (np.zeros((3, 0)), r"embeddings must have"),
        ([], r"embeddings"),
        ([["a"]] * 3, r"embeddings must be numbers"),
    ],
)
def test_embeddings_of_another_shape_are_refused(tracker: Tracker, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        update(tracker, **(one_frame() | {"embeddings": value}))


def test_detections_are_not_checked_again(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes `Detections` has them checked; neither the tracker nor the selection of the tracked does so too."""
    given = one_frame()
    detections = make_detections(given["boxes"], given["scores"], given["labels"])

    def refuse(*_: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr("trackmill.schemas.detections._refuse", refuse)
    ids = tracker.update(detections, given["embeddings"], 0)
    assert len(TrackedObjects.of(detections, ids)) == 3


def test_embeddings_keep_their_dimension(tracker: Tracker) -> None:
    update(tracker, **one_frame())
    longer = one_frame(index=1)
    longer["embeddings"] = np.ones((3, 7), np.float32)
    with pytest.raises(ValueError, match="embeddings have 7 dimensions, those of earlier frames had 4"):
        update(tracker, **longer)
    tracker.reset()
    update(tracker, **longer)


def test_the_input_is_left_alone_and_not_kept(tracker: Tracker) -> None:
    frames = video()
    expected = run(copy.deepcopy(tracker), frames)
    found = []
    for one in frames:
        given = copy.deepcopy(one)
        tracked = update(tracker, *given)
        assert all((a == b).all() for a, b in zip(given[:4], one[:4]))
        found.append(copy.deepcopy(tracked))
        for array in (*given[:4], tracked.objects.boxes, tracked.ids, tracked.indices):
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
        found = [update(tracker, *one, index) for index, one in enumerate(halves)]
        assert same(found, [update(other, *one, index) for index, one in enumerate(rounded)])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e4, 1e15])
def test_embeddings_of_any_length_are_fine(tracker: Tracker, scale: float) -> None:
    for index in range(3):
        given = one_frame(3, index)
        given["embeddings"] = given["embeddings"] * np.float32(scale)
        found = update(tracker, **given)
        assert len(found) == 3 and np.isfinite(found.objects.scores).all()


def test_duplicates_do_no_harm(tracker: Tracker) -> None:
    for index in range(3):
        given = one_frame(3, index)
        doubled = {name: np.repeat(given[name], 2, axis=0) for name in ARGUMENTS}
        found = update(tracker, **doubled, frame_index=index)
        assert len(found) == len(set(found.ids.tolist())) > 0


def test_low_scores_begin_nothing(tracker: Tracker) -> None:
    for index in range(3):
        given = one_frame(3, index)
        assert len(update(tracker, **(given | {"scores": np.zeros(3)}))) == 0
    assert tracker.num_tracks == 0


WRONG: dict[str, dict[str, Any]] = {
    "masa_tao": {
        "memo_momentum": 1.5,
        "memo_tracklet_frames": -1,
        "match_score_thr": -0.1,
        "init_score_thr": float("nan"),
    },
    "scaletrack": {
        "momentum": 1.5,
        "memory_frames": -1,
        "match_threshold": -1.1,
        "min_score": float("nan"),
        "max_detections": 0,
        "nms_iou": 2,
    },
}
"""Of each tracker settings that are out of range; MASA's two share theirs. The first is a share of 0..1."""
WRONG["masa_bdd"] = WRONG["masa_tao"]


@pytest.mark.parametrize("kind", TRACKERS.values(), ids=TRACKERS)
def test_settings_are_checked(kind: type[Tracker]) -> None:
    wrong = WRONG[kind.name]
    share = next(iter(wrong))
    with pytest.raises(ValueError, match=rf"unknown key '{share}s'; did you mean '{share}'\?"):
        kind(**{f"{share}s": 0.5})
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            kind(**{name: value})
    assert getattr(kind(**{share: np.float64(0.5)}).settings, share) == 0.5


@pytest.mark.parametrize(("name", "value"), [("max_distance", -2), ("fps", 0)])
def test_settings_of_the_gate_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        MasaTaoTracker(**{name: value})


def test_importing_trackers_needs_no_torch() -> None:
    code = "import sys, trackmill.models.association; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_those_that_are_wanted_get_the_same_identities_alone(tracker: Tracker) -> None:
    other = copy.deepcopy(tracker)
    for boxes, scores, labels, embeddings, index in video():
        detections = make_detections(boxes, scores, labels)
        expected, rows = tracker.update(detections, embeddings, index), other.wanted(detections)
        if rows is None:
            return
        ids = np.full(len(boxes), -1)
        ids[rows] = other.update(detections.select(rows), embeddings[rows], index)
        assert ids.tolist() == expected.tolist()
