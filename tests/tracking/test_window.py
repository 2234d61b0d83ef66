"""`--show`: what stands on a real X screen (Xvfb) while a video is tracked, and what keys and closing do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageGrab

from tests.tracking.make_tracking import (
    ColourEmbedder,
    SquareDetector,
    make_frame,
    make_tracker,
    source_frame,
    write_frames,
    write_mot_detections,
)
from trackmill.jobs.track import main
from trackmill.pipeline.tracking.drawing import DrawSettings, Trails, draw_tracks
from trackmill.pipeline.tracking.frame_reader import FrameReader
from trackmill.pipeline.tracking.run import TrackingStopped, track_video
from trackmill.pipeline.tracking.two_stage import TwoStage
from trackmill.pipeline.tracking.window import Window, check_screen
from trackmill.pipeline.tracking.writers import MotWriter, TrackSink
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

pytest.importorskip("tkinter", reason="this Python was built without tkinter")


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("Xvfb, a screen in memory, is not installed")
    reading, writing = os.pipe()
    command = [program, "-displayfd", str(writing), "-screen", "0", "400x300x24", "-nolisten", "tcp"]
    process = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            number = told.readline().strip()
        assert number, "Xvfb did not start"
        yield f":{number}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def shown(screen: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.setattr("trackmill.pipeline.tracking.window._LEAST_S", 0)
    return screen


class Clip(FrameReader):
    """Ten frames with three squares; `larger` times as large."""

    def __init__(self, larger: int = 1) -> None:
        super().__init__("clip", 10, 10)
        self.larger = larger

    def __iter__(self) -> Iterator[SourceFrame]:
        for index in range(10):
            image = make_frame(index)
            yield source_frame(index, image.repeat(self.larger, axis=0).repeat(self.larger, axis=1))


class Then(TrackSink):
    """After frame `when` it does something, and before it nothing."""

    def __init__(self, when: int, what: object) -> None:
        self.when, self.what, self.last = when, what, -1

    def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        self.last = frame.index
        if frame.index == self.when:
            self.seen = frame, tracked
            assert callable(self.what)
            self.what()


def track(*writers: TrackSink, reader: FrameReader | None = None) -> None:
    model = TwoStage(SquareDetector(), ColourEmbedder(), make_tracker())
    track_video(reader or Clip(), model, writers, batch_size=1)


def test_the_screen_shows_the_frame_with_its_tracks(shown: str) -> None:
    grabbed: list[Image.Image] = []
    window = Window("clip", DrawSettings(trail_frames=0))
    then = Then(4, lambda: grabbed.append(ImageGrab.grab(xdisplay=shown)))
    track(window, then)
    expected = draw_tracks(then.seen[0].image, then.seen[1], Trails(0))
    screen, (height, width) = np.asarray(grabbed[0].convert("RGB")), expected.shape[:2]
    places = np.lib.stride_tricks.sliding_window_view(screen, (height, width, 3))[..., 0, :, :, :]
    ys, xs = np.nonzero((screen[: 300 - height + 1, : 400 - width + 1] == expected[0, 0]).all(axis=-1))
    assert any((places[y, x] == expected).all() for y, x in zip(ys, xs, strict=True))
    after = np.asarray(ImageGrab.grab(xdisplay=shown).convert("RGB"))
    assert (after == after[0, 0]).all(), "the window is still there"


def test_what_is_larger_than_the_screen_is_shown_smaller(shown: str) -> None:
    sizes: list[tuple[int, int]] = []
    window = Window("clip")
    track(window, Then(3, lambda: sizes.append((window._picture.width(), window._picture.height()))), reader=Clip(20))
    image = make_frame(0)
    factor = min(0.9 * 400 / image.shape[1], 0.9 * 300 / image.shape[0])
    assert sizes == [(int(image.shape[1] * factor), int(image.shape[0] * factor))]


@pytest.mark.parametrize("key", ["q", "<Escape>"])
def test_a_key_stops_as_ctrl_c_does(shown: str, tmp_path: Path, key: str) -> None:
    window = Window("clip")
    press = Then(3, lambda: (window._window.focus_force(), window._window.update(), window._window.event_generate(key)))
    with pytest.raises(TrackingStopped) as stopped:
        track(MotWriter(f"{tmp_path}/clip.txt", (1,)), press, window)
    assert stopped.value.num_frames == 3 and stopped.value.kept == [f"{tmp_path}/clip.partial.txt"]
    assert window._window is None


def test_a_closed_window_does_not_stop_the_run(shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    window = Window("clip")
    last = Then(9, lambda: None)
    track(window, Then(3, lambda: window._close_by_hand()), MotWriter(f"{tmp_path}/clip.txt", (1,)), last)
    assert last.last == 9 and (tmp_path / "clip.txt").exists()
    assert "the window is closed; tracking goes on" in capsys.readouterr().err


def test_a_window_that_is_lost_does_not_cost_the_results(
    shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    window = Window("clip")
    last = Then(9, lambda: None)
    track(Then(3, lambda: window._window.destroy()), window, MotWriter(f"{tmp_path}/clip.txt", (1,)), last)
    assert last.last == 9 and (tmp_path / "clip.txt").exists()
    assert "the window is gone" in capsys.readouterr().err


def test_where_there_is_no_screen_it_says_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", "")
    with pytest.raises(InputError, match=r"--show: there is no screen here .*--save-video"):
        check_screen()


def test_the_job_asks_for_a_screen_before_it_looks_at_the_video(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", "")
    assert main(["--video", "none.mp4", "--output", "out", "--tracker", "sort", "--show"]) == 2
    assert "--show: there is no screen here" in capsys.readouterr().err


def test_the_job_shows_what_it_tracks(shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackers", reason="the extra motion is not installed")
    write_frames(tmp_path / "seq" / "img1", 6)
    det = write_mot_detections(tmp_path / "det.txt", 6)
    frames: list[int] = []
    write = Window.write
    monkeypatch.setattr(Window, "write", lambda self, *each: (write(self, *each), frames.append(each[0].index))[0])
    arguments = ["--video", f"{tmp_path}/seq", "--detections", str(det), "--output", f"{tmp_path}/out"]
    assert main([*arguments, "--tracker", "sort", "--show"]) == 0
    assert frames == list(range(6)) and sorted(each.name for each in (tmp_path / "out").iterdir()) == ["seq.txt"]
