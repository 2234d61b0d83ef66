"""A run that is stopped leaves the tracks of the frames that are done, under names that say that they are partial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pyarrow.parquet
import pytest
from PIL import Image

from tests.tracking.make_tracking import ColourEmbedder, SquareDetector, make_frame, make_tracker, source_frame
from trackmill.pipeline.evaluation.readers.coco_video import read_coco_video
from trackmill.pipeline.formats.mot_text import parse_mot_text
from trackmill.pipeline.storage.urls import filesystem
from trackmill.pipeline.tracking import video_writer
from trackmill.pipeline.tracking.frame_reader import FrameReader
from trackmill.pipeline.tracking.run import TrackingStopped, track_video
from trackmill.pipeline.tracking.two_stage import TwoStage
from trackmill.pipeline.tracking.video_writer import VideoWriter
from trackmill.pipeline.tracking.writers import CocoWriter, MotWriter, ParquetWriter, TrackSink, TrackWriter
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

SUFFIXES = ("json", "mp4", "parquet", "txt")


class Interrupted(FrameReader):
    """Ctrl-C is pressed after `count` of 40 frames."""

    def __init__(self, count: int) -> None:
        super().__init__("clip", 10, 40)
        self.count = count

    def __iter__(self) -> Iterator[SourceFrame]:
        for index in range(40):
            if index == self.count:
                raise KeyboardInterrupt
            yield source_frame(index, make_frame(index % 10))


def writers(folder: str) -> list[TrackWriter]:
    return [
        MotWriter(f"{folder}/clip.txt", (1,)),
        CocoWriter(f"{folder}/clip.json", "clip", ("square",), (1,)),
        ParquetWriter(f"{folder}/clip.parquet", ("square",), (1,)),
        VideoWriter(f"{folder}/clip.mp4", 10),
    ]


def track(reader: FrameReader, folder: str) -> None:
    model = TwoStage(SquareDetector(), ColourEmbedder(), make_tracker())
    track_video(reader, model, writers(folder), batch_size=1)


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return len(list(container.decode(video=0)))


def test_every_format_is_kept_up_to_the_last_frame(tmp_path: Path) -> None:
    with pytest.raises(TrackingStopped) as stopped:
        track(Interrupted(7), str(tmp_path))
    assert stopped.value.num_frames == 7
    assert sorted(map(Path, stopped.value.kept)) == [tmp_path / f"clip.partial.{suffix}" for suffix in SUFFIXES]
    assert sorted(tmp_path.iterdir()) == [tmp_path / f"clip.partial.{suffix}" for suffix in SUFFIXES]
    rows = parse_mot_text((tmp_path / "clip.partial.txt").read_bytes(), "clip")
    assert rows.frames.tolist() == [frame for frame in range(1, 8) for _ in range(3)]
    assert pyarrow.parquet.read_table(tmp_path / "clip.partial.parquet").num_rows == 21
    coco = str(tmp_path / "clip.partial.json")
    (video,) = read_coco_video(coco, coco).videos
    assert video.video.num_frames == 7
    assert frames_in(tmp_path / "clip.partial.mp4") == 7


def test_the_next_run_takes_partial_results_away(tmp_path: Path) -> None:
    with pytest.raises(TrackingStopped):
        track(Interrupted(7), str(tmp_path))
    with pytest.raises(TrackingStopped):
        track(Interrupted(9), str(tmp_path))
    assert len(parse_mot_text((tmp_path / "clip.partial.txt").read_bytes(), "clip")) == 27
    track(Interrupted(99), str(tmp_path))
    assert sorted(tmp_path.iterdir()) == [tmp_path / f"clip.{suffix}" for suffix in SUFFIXES]
    assert frames_in(tmp_path / "clip.mp4") == 40


def test_before_the_first_frame_there_is_nothing_to_keep(tmp_path: Path) -> None:
    with pytest.raises(TrackingStopped) as stopped:
        track(Interrupted(0), str(tmp_path))
    assert stopped.value.kept == [] and list(tmp_path.iterdir()) == []


class StopsAtTheEnd(TrackSink):
    """Ctrl-C is pressed while results are put into their places."""

    def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        """Nothing."""

    def finish(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize("before", range(5))
def test_stopped_while_results_are_finished(tmp_path: Path, before: int) -> None:
    """What is finished stays, the rest is kept as partial, and it is told that the run was stopped."""
    model = TwoStage(SquareDetector(), ColourEmbedder(), make_tracker())
    files = writers(str(tmp_path))
    sinks = [*files[:before], StopsAtTheEnd(), *files[before:]]
    with pytest.raises(TrackingStopped) as stopped:
        track_video(Interrupted(99), model, sinks, batch_size=1)
    suffixes = [file.url.rpartition(".")[2] for file in files]
    names = [f"clip.{suffix}" for suffix in suffixes[:before]]
    names += [f"clip.partial.{suffix}" for suffix in suffixes[before:]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert sorted(Path(url).name for url in stopped.value.kept) == sorted(names)


def test_stopped_while_the_video_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []

    def copy(source: str, target: str) -> None:
        copies.append(target)
        if len(copies) == 1:
            raise KeyboardInterrupt
        plain(source, target)

    plain = video_writer._copy
    monkeypatch.setattr(video_writer, "_copy", copy)
    with pytest.raises(TrackingStopped):
        track(Interrupted(99), str(tmp_path))
    assert frames_in(tmp_path / "clip.partial.mp4") == 40 and not (tmp_path / "clip.mp4").exists()


def test_a_writer_that_cannot_keep_its_own_does_not_cost_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refuses(MotWriter):
        def keep(self) -> str:
            raise OSError(28, "No space left on device")

    model = TwoStage(SquareDetector(), ColourEmbedder(), make_tracker())
    sinks = [Refuses(f"{tmp_path}/other.txt", (1,)), *writers(str(tmp_path))]
    with pytest.raises(TrackingStopped):
        track_video(Interrupted(7), model, sinks, batch_size=1)
    assert sorted(tmp_path.iterdir()) == [tmp_path / f"clip.partial.{suffix}" for suffix in SUFFIXES]
    assert "other.txt: the partial result could not be kept" in capsys.readouterr().err


def test_a_remote_output_gets_them_too() -> None:
    folder = "memory://stopped"
    with pytest.raises(TrackingStopped):
        track(Interrupted(7), folder)
    fs = filesystem(folder)[0]
    assert sorted(fs.ls("/stopped", detail=False)) == [f"/stopped/clip.partial.{suffix}" for suffix in SUFFIXES]
    track(Interrupted(99), folder)
    assert sorted(fs.ls("/stopped", detail=False)) == [f"/stopped/clip.{suffix}" for suffix in SUFFIXES]
    fs.rm("/stopped", recursive=True)


SLOW = """
import time
import numpy as np
from trackmill.schemas.detections import make_detections
from trackmill.schemas.tracking import TrackedObjects

class Slow:
    names, category_ids, num_tracks = ("object",), (1,), 1

    def reset(self):
        pass

    def track(self, frames, times):
        if frames[0].index == 30:
            time.sleep(600)
        found = make_detections([[1, 1, 30, 30]])
        return [TrackedObjects.of(found, np.zeros(1, np.int64)) for _ in frames]
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_ended_leaves_what_it_has(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow_model.py").write_text(SLOW)
    pictures = tmp_path / "in"
    pictures.mkdir()
    for step in range(40):
        Image.fromarray(make_frame(step % 10)).save(pictures / f"{step + 1:06d}.png")
    output = tmp_path / "out"
    command = [sys.executable, "-m", "trackmill.jobs.track", "--video", str(pictures), "--output", str(output)]
    command += [
        "--model",
        "slow_model:Slow",
        "--save-video",
        "--format",
        "mot",
        "coco",
        "--batch",
        "1",
        "--name",
        "clip",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        partial = output / "clip.partial.txt"
        until = time.monotonic() + 300
        while not partial.exists() or len(partial.read_text().splitlines()) < 30:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    rows = parse_mot_text(partial.read_bytes(), "clip")
    assert rows.frames.tolist() == list(range(1, 31))
    assert 10 <= frames_in(output / "clip.partial.mp4") <= 30
    assert not (output / "clip.txt").exists() and not (output / "clip.mp4").exists()
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert "tracked 30 of 40 frames; their tracks are in " in said and "clip.partial.txt" in said
        assert frames_in(output / "clip.partial.mp4") == 30
        assert len(json.loads((output / "clip.partial.json").read_text())["annotations"]) == 30
