"""Three lines inside someone's own program: arrays and supervision's detections alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.tracking.make_tracking import make_frame, make_tracker, square_boxes  # noqa: E402
from trackmill.pipeline.tracking.api import VideoTracker  # noqa: E402
from trackmill.schemas.detections import make_detections  # noqa: E402


class ColourModel:
    """The mean colour of each box, by the interface that MASA has; scaled frames and boxes come in."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def embed(self, images: Any, boxes: list[Any]) -> list[Any]:
        self.shapes.append(tuple(images.shape))
        found = []
        for image, each in zip(images, boxes, strict=True):
            rows = [image[:, int(b[1]) : int(b[3]) + 1, int(b[0]) : int(b[2]) + 1].mean(dim=(1, 2)) for b in each]
            found.append((torch.stack(rows) - 128) / 32 if rows else torch.zeros(0, 3))
        return found


def test_arrays() -> None:
    model = ColourModel()
    tracker = VideoTracker(model, tracker=make_tracker())
    for step in range(5):
        boxes = square_boxes(step)[[step % 3, (step + 1) % 3, (step + 2) % 3]]
        tracked = tracker.update(make_frame(step), (boxes, [0.9, 0.8, 0.7]))
        assert sorted(tracked.ids.tolist()) == [0, 1, 2]
        for identity, index in zip(tracked.ids, tracked.indices, strict=True):
            assert (index + step) % 3 == identity, "the same square, wherever it stands in the list"
    assert model.shapes[0] == (1, 3, 614, 1024), "scaled to 1024 by default"


@pytest.mark.parametrize(
    "given",
    [
        square_boxes(0),
        np.concatenate([square_boxes(0), np.full((3, 1), 0.9)], axis=1),
        (square_boxes(0), np.full(3, 0.9)),
        (square_boxes(0), np.full(3, 0.9), [4, 4, 2]),
        make_detections(square_boxes(0), names=("square",)),
        square_boxes(0).tolist(),
    ],
)
def test_every_form_of_detections(given: Any) -> None:
    tracked = VideoTracker(ColourModel(), tracker=make_tracker()).update(make_frame(0), given)
    assert sorted(tracked.ids.tolist()) == [0, 1, 2]
    assert (tracked.objects.boxes == square_boxes(0)[tracked.indices]).all()


def test_supervision_in_and_out() -> None:
    sv = pytest.importorskip("supervision")
    tracker = VideoTracker(ColourModel(), tracker=make_tracker())
    for step in range(4):
        given = sv.Detections(
            xyxy=np.concatenate([square_boxes(step), [[1, 50, 5, 55]]]),
            confidence=np.array([0.5, 0.9, 0.7, 0.01]),
            class_id=np.array([3, 1, 2, 1]),
            data={"name": np.array(["c", "a", "b", "clutter"])},
        )
        tracked = tracker.update(make_frame(step), given)
        assert isinstance(tracked, sv.Detections)
        assert tracked.data["name"].tolist() == ["c", "a", "b"], "in the given order, what is not tracked left out"
        assert tracked.class_id.tolist() == [3, 1, 2]
        assert tracked.tracker_id.tolist() == [2, 0, 1], "identities go by score"
        assert given.tracker_id is None
    empty = tracker.update(make_frame(4), sv.Detections.empty())
    assert len(empty) == 0
    assert len(empty.tracker_id) == 0
    bare = tracker.update(make_frame(5), sv.Detections(xyxy=square_boxes(5)))
    assert sorted(bare.tracker_id.tolist()) == [0, 1, 2]


def test_random_weights_are_said(caplog: pytest.LogCaptureFixture) -> None:
    VideoTracker("masa_lite0", device="cpu")
    assert "masa_lite0 without weights: they are random" in caplog.text


def test_zero_detections_and_gaps() -> None:
    tracker = VideoTracker(ColourModel(), tracker=make_tracker())
    first = tracker.update(make_frame(0), square_boxes(0))
    assert len(tracker.update(make_frame(1), np.zeros((0, 4)))) == 0
    later = tracker.update(make_frame(2), square_boxes(2), frame_index=6)
    assert first.ids.tolist() == later.ids.tolist()
    with pytest.raises(ValueError, match="frame_index 3 does not come after 6"):
        tracker.update(make_frame(3), square_boxes(3), frame_index=3)
    tracker.reset()
    assert sorted(tracker.update(make_frame(0), square_boxes(0)).ids.tolist()) == [0, 1, 2]


def test_blue_green_red() -> None:
    seen = []
    model = SimpleNamespace(embed=lambda images, boxes: (seen.append(images), [torch.zeros(3, 2)])[1])
    image = make_frame(0)
    VideoTracker(model, tracker=make_tracker()).update(image, square_boxes(0))
    VideoTracker(model, tracker=make_tracker(), bgr=True).update(image[:, :, ::-1], square_boxes(0))
    assert torch.equal(*seen)


def rows_of_boxmot() -> np.ndarray:
    """(N, 6): corners, score, class, as boxmot takes them and `Boxes.data` of ultralytics holds them."""
    return np.c_[square_boxes(0), [0.9, 0.8, 0.7], [4, 0, 4]]


@pytest.mark.parametrize(
    "given",
    [
        rows_of_boxmot(),
        rows_of_boxmot().astype(np.float32),
        rows_of_boxmot().tolist(),
        torch.tensor(rows_of_boxmot()),
        {"boxes": torch.tensor(square_boxes(0)), "scores": torch.tensor([0.9, 0.8, 0.7]), "labels": [4, 0, 4]},
        SimpleNamespace(xyxy=square_boxes(0), conf=[0.9, 0.8, 0.7], cls=np.array([4.0, 0, 4])),
        SimpleNamespace(
            orig_shape=(60, 100),
            boxes=SimpleNamespace(xyxy=square_boxes(0), conf=[0.9, 0.8, 0.7], cls=np.array([4.0, 0, 4])),
        ),
    ],
    ids=["float64", "float32", "lists", "torch", "torchvision", "ultralytics boxes", "ultralytics results"],
)
def test_scores_and_classes_of_other_packages(given: Any) -> None:
    tracked = VideoTracker(ColourModel(), tracker=make_tracker()).update(make_frame(0), given)
    assert tracked.ids.tolist() == [0, 1, 2]
    assert tracked.objects.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert tracked.objects.labels.tolist() == [4, 0, 4]
    assert (tracked.objects.boxes == square_boxes(0)).all()


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 4)), np.zeros((0, 6)), ([], [], []), {"boxes": []}])
def test_nothing_was_found(nothing: Any) -> None:
    tracker = VideoTracker(ColourModel(), tracker=make_tracker())
    assert [len(tracker.update(make_frame(0), each)) for each in (square_boxes(0), nothing)] == [3, 0]


@pytest.mark.parametrize(
    ("image", "detections", "message"),
    [
        (make_frame(0).astype(np.float32), square_boxes(0), r"image: should be \(H, W, 3\) uint8, found float32"),
        (make_frame(0)[:, :, 0], square_boxes(0), "image: should be"),
        (make_frame(0)[:0], square_boxes(0), "image: has no pixel"),
        ("a.jpg", square_boxes(0), "found str"),
        (make_frame(0), (square_boxes(0), [0.5, np.nan, 1]), "scores: row 1 is not finite"),
        (make_frame(0), square_boxes(0)[:, :3], "boxes: should be of shape"),
        (make_frame(0), (), "a tuple should be boxes, scores, labels"),
        (make_frame(0), None, r"\[\] where nothing was found; or name a detector"),
        (make_frame(0), (None,), r"boxes: None is no array; hand over \[\]"),
        (make_frame(0), [None, None], "boxes: should be numbers, found None"),
        (make_frame(0), (square_boxes(0), None, ["car", "dog", "car"]), "labels: .* found 'car'; number the classes"),
        (make_frame(0), (square_boxes(0), None, np.array(["a", 1, 2], object)), "labels: should be numbers, found 'a'"),
        (make_frame(0), (square_boxes(0), ["high"] * 3), "scores: should be numbers, found 'high'"),
        (make_frame(0), np.zeros((3, 17, 2)), "looks like key points .*; hand over the boxes around them"),
        (
            make_frame(0),
            SimpleNamespace(xy=np.zeros((3, 17, 2))),
            "are no boxes; hand over the boxes around the points",
        ),
        (make_frame(0), np.zeros((3, 7)), r"\(N, 6\) with scores and classes, found \(3, 7\)"),
        (make_frame(0), square_boxes(0)[0], r"one box is \[\[4.0, 5.0, 16.0, 17.0\]\]"),
        (make_frame(0), [{"bbox": [1, 2, 3, 4]}], "boxes: should be numbers, found {'bbox'"),
        (make_frame(0), {"bbox": 1, "score": 2}, "a dictionary should have 'boxes', found bbox, score"),
        (make_frame(0), "boxes.txt", "cannot use str; hand over supervision.Detections"),
        (make_frame(0), (np.ones((3, 6)), [1, 1, 1]), "hold scores already"),
        (make_frame(0), np.c_[square_boxes(0), [0.9] * 3, [0, 1, 1.5]], "labels: row 2 is not a whole number"),
    ],
)
def test_mistakes_leave_the_tracker_as_it_was(image: Any, detections: Any, message: str) -> None:
    tracker = VideoTracker(ColourModel(), tracker=make_tracker())
    with pytest.raises(ValueError, match=message):
        tracker.update(image, detections)
    assert tracker.tracker.num_tracks == 0
    tracker.update(make_frame(0), square_boxes(0), frame_index=0)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("masa_r5",), {}, "did you mean .masa_r50"),
        ((ColourModel(),), {"tracker": "sorts"}, "tracker 'sorts': known are tao"),
        ((ColourModel(),), {"match_score_th": 0.5}, "match_score_thr"),
        ((ColourModel(),), {"device": "cuda:99"}, "device 'cuda:99'"),
        ((ColourModel(),), {"tracker": make_tracker(), "match_score_thr": 0.5}, "match_score_thr"),
    ],
)
def test_wrong_names(arguments: tuple, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoTracker(*arguments, **settings)


def test_settings_reach_the_tracker() -> None:
    tracker = VideoTracker(ColourModel(), tracker="bdd", match_score_thr=0.7).tracker
    assert (tracker.settings.match_score_thr, tracker.settings.init_score_thr) == (0.7, 0.5)
