"""A Matroska or WebM file that was cut short is not taken for a whole one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.make_media import make_video
from tests.media.test_headers_that_say_little import piped
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import TruncatedMedia
from trackmill.pipeline.media.matroska import missing_bytes
from trackmill.pipeline.media.videos import VideoReader
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_bytes_that_are_missing(tmp_path: Path, codec: str) -> None:
    whole = make_video(tmp_path / ("a.mkv" if codec == "libx264" else "a.webm"), 48, codec=codec).read_bytes()
    opened = io.BytesIO(whole)
    opened.seek(7)
    assert missing_bytes(opened) == 0 and opened.tell() == 7
    assert missing_bytes(io.BytesIO(whole[:-1])) == 1
    assert missing_bytes(io.BytesIO(whole[: len(whole) // 2])) == len(whole) - len(whole) // 2


@pytest.mark.parametrize("data", [b"", b"\0" * 40, b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\xff", b"RIFF" * 9])
def test_what_is_no_matroska_says_nothing(data: bytes) -> None:
    assert missing_bytes(io.BytesIO(data)) == 0


def test_a_recording_that_says_no_length_may_be_whole(tmp_path: Path) -> None:
    video = piped(make_video(tmp_path / "a.mkv", 24), tmp_path / "b.mkv")
    assert missing_bytes(io.BytesIO(video.read_bytes())) == 0


def test_a_cut_file_gives_what_it_holds_and_says_that_more_is_missing(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mkv", 96, 24).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    with open(tmp_path / "cut.mkv", "rb") as handle:
        reader = VideoReader(handle, "cut.mkv", max_pixels=10**7, longest_side=1024)
        assert 24 < reader.num_frames < 90 and reader.num_frames + reader.missing == 96
        reader.close()
    (tmp_path / "whole.mkv").unlink()
    settings = ReadSettings(frames_per_clip=16, label_fps=24)
    items, _, _ = claim_all([str(tmp_path)], "videos", settings)
    source = open_source("videos", settings)
    ends = []
    for item in items:
        try:
            ends.append(len(source.read(item).frames))
        except TruncatedMedia as error:
            # Where the cut goes through a frame, that one is named: it depends on what the encoder made.
            assert "ends early" in str(error) or "data is missing there" in str(error)
            ends.append(0)
    assert ends[0] == 16 and ends[-1] == 0 and len(ends) == 6
