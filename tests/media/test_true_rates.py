"""Rates and lengths that a header gets wrong: every frame is planned once, at the rate at which frames come."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from av.stream import Disposition
from PIL import Image

from tests.make_numbered import copy_packets, make_numbered, numbered_picture
from tests.media.read_frames import mined, tracked
from tests.media.test_headers_that_say_little import Pipe
from trackmill.pipeline.media.video_headers import probe
from trackmill.pipeline.tracking.frames import open_frames

ALL = {index: index for index in range(96)}


def test_a_variable_rate_that_is_stated_as_double(tmp_path: Path) -> None:
    """A camera set to 30 frames a second that took 15: a sixth of a second is 2.5 frames, not 5."""
    video = make_numbered(tmp_path / "a.mkv", 60, 30, times=[2 * step for step in range(60)])
    with av.open(str(video)) as container:
        assert container.streams.video[0].average_rate == 30
    header = probe(str(video))
    assert header.num_frames == 60 and header.fps == pytest.approx(15, abs=0.01)
    stored, errors = mined(video, label_fps=5)
    assert (list(stored), errors) == (list(range(0, 60, 3)), [])
    assert open_frames(str(video)).fps == pytest.approx(15, abs=0.01)


def test_a_rate_that_is_stated_well_is_kept(tmp_path: Path) -> None:
    """Times in milliseconds give 23.98 or 24.02; the file says 24."""
    video = make_numbered(tmp_path / "a.mkv", 20)
    assert probe(str(video)).fps == open_frames(str(video)).fps == 24


def test_mpeg_2_whose_length_is_estimated(tmp_path: Path) -> None:
    video = make_numbered(tmp_path / "a.mpg", 96, 25, codec="mpeg2video")
    assert probe(str(video)).num_frames == 96
    assert mined(video) == (ALL, []) and tracked(video) == (ALL, [], 96)
    stream = make_numbered(tmp_path / "a.ts", 96, 25, codec="mpeg2video")
    assert mined(stream) == (ALL, []) and tracked(stream) == (ALL, [], 96)


def test_an_flv_that_was_piped(tmp_path: Path) -> None:
    whole = make_numbered(tmp_path / "whole.flv", 96)
    pipe = Pipe(tmp_path / "piped.flv")
    with av.open(str(whole)) as given, av.open(pipe, "w", format="flv") as made:
        copied = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = copied
                made.mux(packet)
    pipe.close()
    assert mined(tmp_path / "piped.flv") == (ALL, []) and tracked(tmp_path / "piped.flv") == (ALL, [], 96)


def test_a_thousand_frames_a_second(tmp_path: Path) -> None:
    """20 frames in 2.6 s, in a container whose unit of time is taken for its rate."""
    for name in ("a.mkv", "a.mp4"):
        video = make_numbered(tmp_path / name, 20, 1000, times=[130 * step for step in range(20)])
        assert 7 < open_frames(str(video)).fps < 9
        assert list(mined(video, label_fps=4)[0]) == list(range(0, 20, 2))


@pytest.mark.parametrize("name", ["marked.mp4", "unmarked.mkv"])
def test_a_cover_picture_is_not_the_video(tmp_path: Path, name: str) -> None:
    video = make_numbered(tmp_path / "plain.mp4", 24)
    Image.fromarray(numbered_picture(999)).save(tmp_path / "cover.jpg")
    path = tmp_path / name
    with av.open(str(video)) as given, av.open(str(tmp_path / "cover.jpg")) as cover, av.open(str(path), "w") as made:
        first = made.add_stream_from_template(cover.streams.video[0])
        second = made.add_stream_from_template(given.streams.video[0])
        if name == "marked.mp4":
            first.disposition = Disposition.attached_pic
        for container, target in ((cover, first), (given, second)):
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = target
                    made.mux(packet)
    expected = {index: index for index in range(24)}
    assert mined(path) == (expected, []) and tracked(path) == (expected, [], 24)


def test_frames_left_out_of_the_file_keep_the_others_times(tmp_path: Path) -> None:
    """A variable rate in a transport stream without a lost packet: nothing is missing."""
    full = make_numbered(tmp_path / "full.ts", 48, bframes=0, gop=1)
    thin = copy_packets(full, tmp_path / "thin.ts", keep=lambda place: place % 7 != 3)
    kept = [place for place in range(48) if place % 7 != 3]
    frames, problems, _ = tracked(thin)
    assert (list(frames.values()), problems) == (kept, [])


@pytest.mark.parametrize("bframes", [0, 2])
def test_an_avi_that_counts_frames_which_only_repeat_others(tmp_path: Path, bframes: int) -> None:
    """Its header says 56, of which 8 are empty: the first one, and seven where a camera paused."""
    times = [1 + step + 7 * (step >= 20) for step in range(48)]
    path = make_numbered(tmp_path / "a.avi", 48, codec="mpeg4", bframes=bframes, times=times)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 48
    expected = {index: index for index in range(48)}
    assert tracked(path) == (expected, [], 48) and mined(path) == (expected, [])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    frames, problems, count = tracked(path)
    assert 2 < len(frames) < count and "ends early" in problems[-1], "cut short it is noticed as before"
