"""A file of which an end is missing is not taken for a whole one, by mining or by tracking."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from tests.make_numbered import make_numbered
from tests.media.read_frames import mined, tracked
from trackmill.pipeline.media.cut_short import is_cut_short

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}

KINDS: dict[str, dict[str, Any]] = {
    "a.flv": {"codec": "flv1", "bframes": 0},
    "h264.flv": {},
    "a.wmv": {"codec": "wmv2", "bframes": 0},
    "a.ogv": {"codec": "libvpx", "bframes": 0, "container": "ogg"},
    "a.mkv": {},
    "a.webm": {"codec": "libvpx-vp9"},
    "a.ts": {},
    "a.avi": {"codec": "mpeg4", "bframes": 0},
    "fragments.mp4": {"options": FRAGMENTS},
    "index_first.mp4": {"options": {"movflags": "faststart"}},
}


@pytest.mark.parametrize("name", KINDS)
def test_a_cut_file_gives_what_it_holds_and_says_that_more_is_missing(tmp_path: Path, name: str) -> None:
    path = make_numbered(tmp_path / name, 96, **KINDS[name])
    whole = path.read_bytes()
    assert tracked(path) == ({index: index for index in range(96)}, [], 96)
    assert mined(path) == ({index: index for index in range(96)}, [])
    path.write_bytes(whole[: len(whole) * 6 // 10])
    frames, problems, expected = tracked(path)
    assert 12 <= len(frames) < 96 and len(frames) < expected
    assert all(number == index for index, number in frames.items()), "B-frames of the last one may be missing"
    assert problems and name in problems[-1]
    stored, errors = mined(path)
    assert errors and all(number == index for index, number in stored.items())
    assert len(stored) > len(frames) - 10, "only the clip in which the file ends is lost"


def test_an_flv_that_ends_between_two_frames(tmp_path: Path) -> None:
    """Its last bytes are in order; that it says four seconds and has two is left."""
    data = make_numbered(tmp_path / "a.flv", 96, codec="flv1", bframes=0).read_bytes()
    position = 13
    while int.from_bytes(data[position + 4 : position + 7], "big") < 2000:
        position += 11 + int.from_bytes(data[position + 1 : position + 4], "big") + 4
    path = tmp_path / "cut.flv"
    path.write_bytes(data[:position])
    frames, problems, _ = tracked(path)
    assert len(frames) == 48 and "ends early" in problems[0]


def test_an_flv_that_counts_its_tags_wrongly_is_whole(tmp_path: Path) -> None:
    data = make_numbered(tmp_path / "a.flv", 12, codec="flv1", bframes=0).read_bytes()
    size = int.from_bytes(data[-4:], "big") - 11
    assert not is_cut_short(io.BytesIO(data[:-4] + size.to_bytes(4, "big")), "flv", 0.5)
    assert is_cut_short(io.BytesIO(data[:-6]), "flv", 0.5)


@pytest.mark.parametrize("kind", ["flv", "asf", "ogg", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "avi"])
@pytest.mark.parametrize("data", [b"", b"\0" * 50, b"FLV\x01" * 9, bytes(range(256))])
def test_the_position_stays_and_any_bytes_have_an_answer(kind: str, data: bytes) -> None:
    handle = io.BytesIO(data)
    handle.seek(len(data) // 2)
    assert is_cut_short(handle, kind, 1.0) in (True, False)
    assert handle.tell() == len(data) // 2
