"""Code of others: a detector, an embedder and an end-to-end tracker in a module that is no part of the project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.tracking.make_tracking import make_frame, square_boxes, write_frames, write_mot_detections
from trackmill.jobs.track import main
from trackmill.pipeline.formats.mot_text import parse_mot_text
from trackmill.pipeline.tracking.api import VideoTracker

ROOT = Path(__file__).parents[2]

MODULE = '''
"""Squares by their colours."""

import numpy as np

from trackmill.models.detectors.base import Detector
from trackmill.models.embedders.base import Embedder
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.schemas.config import Settings
from trackmill.schemas.detections import make_detections
from trackmill.schemas.tracking import TrackedObjects

COLOURS = np.array([[220, 40, 40], [40, 200, 60], [60, 80, 230]])


def squares(image):
    """Which colours are there, and their boxes."""
    places = [np.nonzero((np.abs(image.astype(int) - colour) < 40).all(axis=2)) for colour in COLOURS]
    there = [number for number, (rows, _) in enumerate(places) if len(rows)]
    boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in (places[number] for number in there)]
    return there, np.reshape(boxes, (-1, 4))


class Squares(Detector):
    names = ("square",)
    category_ids = (5,)

    def detect(self, images, frames=None):
        found = [squares(image) for image in images]
        return [make_detections(boxes, [0.9, 0.8, 0.7][: len(boxes)], names=self.names) for _, boxes in found]


class Colours(Embedder):
    def embed(self, images, boxes):
        return [
            np.array([image[int(b[1]) + 2, int(b[0]) + 2] / 32.0 - 4 for b in each]).reshape(-1, 3)
            for image, each in zip(images, boxes)
        ]


class Whole(VideoModel):
    """An id for each colour that has been seen: pictures in, tracks out."""

    names = ("square",)
    category_ids = (5,)

    class Config(Settings):
        first_id: int = 0

    def __init__(self, first_id):
        self.first_id = first_id

    @classmethod
    def build(cls, config, tensors=None, device="cpu"):
        return cls(config.first_id)

    def reset(self):
        self.seen = []

    @property
    def num_tracks(self):
        return len(self.seen)

    def track(self, frames, times):
        results = []
        for frame in frames:
            there, boxes = squares(frame.image)
            self.seen += [number for number in there if number not in self.seen]
            ids = [self.first_id + self.seen.index(number) for number in there]
            results.append(TrackedObjects.of(make_detections(boxes, names=self.names), ids))
        return results


class Nothing:
    """Neither one nor the other."""
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of somebody's with a package of theirs and a video, in which commands are typed."""
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "__init__.py").touch()
    (tmp_path / "shapes" / "squares.py").write_text(MODULE)
    write_frames(tmp_path / "seq" / "img1", 5)
    write_mot_detections(tmp_path / "det.txt", 5)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "shapes"]:
        del sys.modules[name]


def assert_tracked(folder: Path) -> None:
    """Every square has one identity from the first frame to the last."""
    rows = parse_mot_text((folder / "out" / "seq.txt").read_bytes(), "seq.txt")
    assert sorted(set(rows.ids.tolist())) == [0, 1, 2]
    for identity in range(3):
        boxes = rows.boxes[rows.ids == identity]
        assert any(boxes.tolist() == [square_boxes(step)[k].tolist() for step in range(5)] for k in range(3))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The job itself, as somebody types it."""
    line = [sys.executable, str(ROOT / "jobs" / "track.py"), "--video", "seq", "--output", "out", "--device", "cpu"]
    return subprocess.run([*line, *arguments], capture_output=True, text=True, check=False)


def test_an_end_to_end_tracker_from_the_command_line(folder: Path) -> None:
    done = command("--model", "shapes.squares:Whole", "--batch", "2")
    assert done.returncode == 0, done.stderr
    assert "5 frames, 15 detections, 15 of them in 3 tracks" in done.stdout
    assert "track " in done.stdout, "a model that counts no stage of its own is one stage"
    assert "identities are by chance" not in done.stderr
    assert_tracked(folder)


def test_a_detector_and_an_embedder_from_the_command_line(folder: Path) -> None:
    done = command("--model", "shapes.squares:Colours", "--detections", "shapes.squares:Squares")
    assert done.returncode == 0, done.stderr
    assert "5 frames, 15 detections, 15 of them in 3 tracks" in done.stdout
    assert "detect" in done.stdout
    assert_tracked(folder)


def job(*arguments: str) -> int:
    return main(["--video", "seq", "--output", "out", "--device", "cpu", *arguments])


def test_a_detector_in_front_of_a_model_of_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--model", "masa_lite0", "--set", "size.long_side=64", "--detections", "shapes.squares:Squares"]
    assert job(*own, "--min-score", "0.75") == 0
    assert "5 frames, 10 detections" in capsys.readouterr().out, "one of three has a score below"


def test_settings_reach_a_model_from_outside(folder: Path) -> None:
    assert job("--model", "shapes.squares:Whole", "--set", "model.first_id=40") == 0
    rows = parse_mot_text((folder / "out" / "seq.txt").read_bytes(), "seq.txt")
    assert sorted(set(rows.ids.tolist())) == [40, 41, 42]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "shapes.squares:Hole"], "did you mean 'Whole'"),
        (["--model", "shapes.circles:Whole"], "there is no module 'shapes.circles'"),
        (["--model", "shapes.squares:Nothing"], "is neither a VideoModel"),
        (["--model", "masa_lite0", "--detections", "shapes.squares:Nothing"], "Nothing is no Detector"),
        (["--model", "shapes.squares:Colours", "--detections", "masa"], "has no feature maps"),
        (["--model", "shapes.squares:Colours", "--detections", "det.txt", "--set", "size.long_side=64"], "as they are"),
        (["--model", "shapes.squares:Whole", "--detections", "det.txt"], "--detections: shapes.squares:Whole is an"),
        (["--model", "shapes.squares:Whole", "--set", "tracker.fps=3"], "--set tracker: shapes.squares:Whole is an"),
        (["--model", "shapes.squares:Whole", "--set", "model.first=3"], "did you mean 'first_id'"),
        (["--model", "masa_lite0", "--detections", "det.txt", "--set", "proposals.nms_iou=1"], "--set proposals"),
        (["--model", "masa_lite0", "--detections", "det.txt", "--detector-weights", "none"], "--detector-weights"),
    ],
)
def test_what_does_not_go_together(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(*arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert not list((folder / "out").glob("*"))


def test_inside_a_program(folder: Path) -> None:
    """`VideoTracker` takes the same names, and objects."""
    whole = VideoTracker("shapes.squares:Whole")
    named = VideoTracker("shapes.squares:Colours", detections="shapes.squares:Squares", init_score_thr=0.1)
    given = VideoTracker("shapes.squares:Colours", init_score_thr=0.1)
    from shapes.squares import Colours, Squares, Whole  # type: ignore[import-not-found]

    finders = [whole, named, VideoTracker(Whole(0)), VideoTracker(Colours(), detections=Squares(), init_score_thr=0.1)]
    for step in range(3):
        for tracker in finders:
            assert sorted(tracker.update(make_frame(step)).ids.tolist()) == [0, 1, 2]
        assert sorted(given.update(make_frame(step), square_boxes(step)).ids.tolist()) == [0, 1, 2]
    assert whole.num_tracks == named.num_tracks == given.num_tracks == 3
    assert named.tracker.num_tracks == 3
    with pytest.raises(ValueError, match="detections: objects are found here already"):
        whole.update(make_frame(3), square_boxes(3))
    with pytest.raises(ValueError, match="detections: objects are found here already"):
        named.update(make_frame(3), square_boxes(3))
    with pytest.raises(ValueError, match="detections: hand them over"):
        given.update(make_frame(3))
    with pytest.raises(AttributeError, match="Whole is an end-to-end tracker"):
        _ = whole.tracker
    whole.reset()
    assert np.array_equal(whole.update(make_frame(0)).ids, [0, 1, 2])
