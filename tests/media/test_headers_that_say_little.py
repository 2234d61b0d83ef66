"""Videos whose header says no length, or a rate that is none: every frame is planned, at the rate it was taken."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

import av
import pytest

from tests.make_media import make_video
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.video_headers import probe
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings


class Pipe:
    """A file that is written and never sought in, as a recorder writes to a socket."""

    def __init__(self, path: Path) -> None:
        self._handle = FileIO(path, "w")

    def write(self, data: bytes) -> int:
        return self._handle.write(data)

    def close(self) -> None:
        self._handle.close()


def piped(source: Path, target: Path) -> Path:
    """The same packets in a container that was never told its length."""
    pipe = Pipe(target)
    with av.open(str(source)) as given, av.open(pipe, "w", format="matroska") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    pipe.close()
    return target


def frames_of(path: Path, settings: ReadSettings) -> list[tuple[int, float]]:
    items, _, _ = claim_all([str(path)], "videos", settings)
    source = open_source("videos", settings)
    read = [source.read(item) for item in items]
    assert not any(media.num_source_frames is None for media in read)
    return [(frame.index, round(frame.time_s, 3)) for media in read for frame in media.frames]


def test_a_recording_that_was_piped(tmp_path: Path) -> None:
    video = piped(make_video(tmp_path / "whole.mkv", 50, 10), tmp_path / "piped.mkv")
    with av.open(str(video)) as container:
        assert not container.duration and not container.streams.video[0].duration, "it says no length"
    header = probe(str(video))
    assert header.num_frames == 50
    frames = frames_of(video, ReadSettings(frames_per_clip=8, label_fps=10))
    assert [index for index, _ in frames] == list(range(50))


def test_a_rate_that_is_the_unit_of_time_stamps(tmp_path: Path) -> None:
    """600 frames at 30 frames a second, in a file that says 1000."""
    video = make_video(tmp_path / "phone.mkv", 120, 1000, times=[33 * step for step in range(120)])
    with av.open(str(video)) as container:
        assert container.streams.video[0].average_rate > 300
    header = probe(str(video))
    assert header.num_frames == 120 and header.fps == pytest.approx(1000 / 33, rel=1e-3)
    frames = frames_of(video, ReadSettings(frames_per_clip=8, label_fps=6))
    assert [index for index, _ in frames] == list(range(0, 120, 5))
    assert frames[-1][1] == pytest.approx(115 * 0.033, abs=0.01)


def test_what_a_header_says_well_is_not_read_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = make_video(tmp_path / "fine.mp4", 24, 24)

    def never(*arguments: object) -> None:
        raise AssertionError("the packets were counted")

    monkeypatch.setattr("trackmill.pipeline.media.video_headers.list_packets", never)
    assert probe(str(video)).num_frames == 24
