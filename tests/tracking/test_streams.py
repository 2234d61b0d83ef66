"""What has no known end: a pipe, and a stream in a network; cameras are named, and not opened, here."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.make_media import make_video
from tests.tracking.test_excerpt import MODEL
from trackmill.jobs.track import main
from trackmill.pipeline.formats.mot_text import parse_mot_text
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.pipeline.tracking.streams import StreamFrames, is_stream, stream_name
from trackmill.pipeline.tracking.videos import choose_videos

ROOT = Path(__file__).parents[2]


def test_what_is_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "-": "stdin",
        "0": "webcam0",
        "webcam:12": "webcam12",
        "rtsp://me:secret@camera.local:554/live/door%201?x=[1]": "door_201",
        "rtsp://camera.local": "camera.local",
        "TCP://127.0.0.1:99/": "127.0.0.1",
    }
    assert {url: stream_name(url) for url in names if is_stream(url)} == names
    assert not any(map(is_stream, ("clip.mp4", "https://x/clip.mp4", "s3://b/0", "webcam", "1234", "/dev/video0")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    assert not is_stream("0") and is_stream("webcam:0"), "a file that is called so"
    assert [video.name for video in choose_videos(["-", "rtsp://x/a?b=[c]"])] == ["stdin", "a"]


def test_frames_over_a_network(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mkv", 20, fps=25)
    server = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(path.read_bytes())

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    with contextlib.closing(StreamFrames(f"tcp://127.0.0.1:{server.getsockname()[1]}", 10**6)) as reader:
        found = list(reader)
    thread.join(60)
    server.close()
    wanted = list(open_frames(str(path)))
    assert [frame.number for frame in found] == [frame.number for frame in wanted] == list(range(1, 21))
    assert all((one.image == other.image).all() for one, other in zip(found, wanted, strict=True))
    assert [frame.time_s for frame in found] == pytest.approx([frame.time_s for frame in wanted], abs=2e-3)
    assert not reader.problems and reader.fps == pytest.approx(25)


def test_a_sender_that_begins_anew_and_a_phone_on_its_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Time goes on where it was, and pictures stand upright, as those of a file do."""
    data = make_video(tmp_path / "clip.mkv", 3, fps=10).read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    reader = StreamFrames("-", 10**6)
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    frames = [
        SimpleNamespace(width=3, height=2, time=time, rotation=90, to_ndarray=lambda format: picture)
        for time in (7.0, 7.1, 7.2, 0.0, 0.1, None, 0.4)
    ]
    reader._container.close()
    reader._container = SimpleNamespace(decode=lambda stream: frames, close=lambda: None)
    found = list(reader)
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7])
    assert all(np.array_equal(frame.image, np.rot90(picture)) for frame in found)


def test_what_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BadItem, match=r"webcam:123: cannot be opened"):
        StreamFrames("webcam:123", 10**6)
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    server.close()
    with pytest.raises(BadItem, match=f"tcp://127.0.0.1:{port}.*: cannot be opened"):
        StreamFrames(f"tcp://127.0.0.1:{port}", 10**6)
    for data in (b"", b"no video" * 1000):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        with pytest.raises(BadItem, match="-: cannot be opened"):
            StreamFrames("-", 10**6)
    data = make_video(tmp_path / "clip.mkv", 3).read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    with pytest.raises(BadItem, match=r"more than `read\.max_pixels`"):
        list(StreamFrames("-", 50))


def test_no_part_and_no_second_reading(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = make_video(tmp_path / "clip.mkv", 3).read_bytes()
    for options, message in (
        (["--offline"], "comes only once"),
        (["--start", "3"], "frames are not known beforehand"),
        (["--end", "3s"], "frames are not known beforehand"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
            assert main(["--video", "-", "--output", str(tmp_path / "out"), *options]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("ended", [True, False])
def test_a_pipe_through_the_job(tmp_path: Path, ended: bool) -> None:
    """The pipe ends; or nothing more comes and Ctrl-C is pressed: the results are kept."""
    (tmp_path / "one_model.py").write_text(MODEL)
    data = make_video(tmp_path / "clip.mkv", 60, gop=4, bframes=0, size=(256, 256)).read_bytes()
    output = tmp_path / "out"
    command = [sys.executable, "-m", "trackmill.jobs.track", "--video", "-", "--name", "live", "--output", str(output)]
    command += ["--model", "one_model:One", "--batch", "1", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdin is not None
        if ended:
            said = process.communicate(data, timeout=300)[1]
        else:
            process.stdin.write(data[: len(data) * 9 // 10])
            process.stdin.flush()
            partial, until = output / "live.partial.txt", time.monotonic() + 300
            while not partial.exists() or len(partial.read_text().splitlines()) < 5:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            said = process.stderr.read() if process.stderr is not None else b""
            process.wait(120)
    finally:
        process.kill()
    assert process.returncode == (0 if ended else 130), said
    rows = parse_mot_text((output / ("live.txt" if ended else "live.partial.txt")).read_bytes(), "live")
    frames = rows.frames.tolist()
    assert frames == list(range(1, len(frames) + 1)) and (len(frames) == 60 if ended else 5 <= len(frames) < 60)
