"""Files with damage in the middle: what is read carries its own number, and what is not read is told."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.make_numbered import make_numbered
from tests.media.read_frames import mined, tracked
from trackmill.pipeline.media import avi, flash_video, matroska, ogg

KINDS: dict[str, dict[str, Any]] = {
    "a.mkv": {},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx"},
    "a.flv": {},
    "a.mp4": {},
}
READ_UP_TO_THE_DAMAGE: dict[str, dict[str, Any]] = {
    "a.avi": {"codec": "mpeg4", "bframes": 0},
    "with_b_frames.avi": {},
    "a.ogv": {"codec": "libvpx", "bframes": 0, "container": "ogg"},
}


def damaged(data: bytes, kind: str) -> bytes:
    """Some frames in the middle are overwritten, or are not there."""
    begin, length = len(data) // 2, len(data) // 20
    filler = {"zeros": bytes(length), "noise": np.random.default_rng(0).bytes(length), "cut out": b""}[kind]
    return data[:begin] + filler + data[begin + length :]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in (*KINDS, *READ_UP_TO_THE_DAMAGE)
        for damage in ("zeros", "noise", "cut out")
        if (name, damage) != ("a.mp4", "cut out")  # its index is not where the file says, so it is refused
    ],
)
def test_no_frame_gets_the_number_of_another_one(tmp_path: Path, name: str, damage: str) -> None:
    path = make_numbered(tmp_path / name, 60, gop=10, **{**KINDS, **READ_UP_TO_THE_DAMAGE}[name])
    assert tracked(path) == ({index: index for index in range(60)}, [], 60)
    path.write_bytes(damaged(path.read_bytes(), damage))
    frames, problems, expected = tracked(path)
    assert (expected == 60 or name == "a.ogv", list(frames.values())) == (True, list(frames))
    assert set(range(10)) <= set(frames) and len(frames) < 60
    assert (59 in frames) == (name in KINDS), "what numbers frames by counting them is read up to the damage"
    assert problems and all(name in text for text in problems)
    stored, errors = mined(path)
    assert (list(stored.values()), bool(errors)) == (list(stored), True)
    assert set(stored) <= set(frames) and set(range(8)) <= set(stored)


def test_where_matroska_is_damaged(tmp_path: Path) -> None:
    data = make_numbered(tmp_path / "a.mkv", 30, gop=5).read_bytes()
    assert matroska.find_damage(io.BytesIO(data), 9) == []
    handle = io.BytesIO(damaged(data, "noise"))
    handle.seek(5)
    (place,) = matroska.find_damage(handle, 9)
    assert len(data) // 4 < place < len(data) * 3 // 4 and handle.tell() == 5
    # Somebody's own element between two others is none of our business, nor is empty space.
    cluster = data.index(b"\x1f\x43\xb6\x75")
    for own in (b"\x42\xf9\x83abc", b"\xec\x85\0\0\0\0\0"):
        assert matroska.find_damage(io.BytesIO(data[:cluster] + own + data[cluster:]), 9) == []


def test_where_flv_is_damaged(tmp_path: Path) -> None:
    path = make_numbered(tmp_path / "a.flv", 30, gop=5)
    data = path.read_bytes()
    assert flash_video.find_damage(io.BytesIO(data), 9) == []
    (place,) = flash_video.find_damage(io.BytesIO(damaged(data, "zeros")), 9)
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    assert place - 1 in positions and place <= len(data) // 2


def test_where_ogg_is_damaged(tmp_path: Path) -> None:
    path = make_numbered(tmp_path / "a.ogv", 30, gop=5, codec="libvpx", bframes=0, container="ogg")
    data = path.read_bytes()
    assert ogg.first_damage(io.BytesIO(data)) is None
    pages = [at for at in range(len(data)) if data.startswith(b"OggS", at)]
    middle = len(pages) // 2
    flipped = bytearray(data)
    flipped[pages[middle] + 200] ^= 1
    assert ogg.first_damage(io.BytesIO(flipped)) == pages[middle - 1], "the checksum is another one"
    without = data[: pages[middle]] + data[pages[middle + 1] :]
    assert ogg.first_damage(io.BytesIO(without)) == pages[middle - 1], "a page is not there"


def test_where_avi_is_damaged(tmp_path: Path) -> None:
    data = make_numbered(tmp_path / "a.avi", 30, gop=5, codec="mpeg4", bframes=0).read_bytes()
    first = data.index(b"00dc", data.index(b"movi"))
    assert avi.first_damage(io.BytesIO(data), first) is None
    place = avi.first_damage(io.BytesIO(damaged(data, "zeros")), first)
    assert place is not None and data[place : place + 4] == b"00dc" and place <= len(data) // 2


def test_a_video_of_which_nothing_can_be_decoded_is_given_up(tmp_path: Path) -> None:
    path = make_numbered(tmp_path / "a.mp4", 60, gop=2, bframes=0)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        sizes = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in sizes[1:]:
        data[position + 5 : position + size] = bytes(size - 5)  # as if it were encrypted
    path.write_bytes(bytes(data))
    frames, problems, _ = tracked(path)
    assert len(frames) <= 1 and 1 <= len(problems) <= 6


def test_frames_that_a_recorder_left_out_are_not_missed(tmp_path: Path) -> None:
    """The same gap in the times, and a file in order."""
    times = [step for step in range(60) if not 20 <= step < 26]
    path = make_numbered(tmp_path / "a.mkv", 54, times=times)
    assert tracked(path) == ({index: index for index in range(54)}, [], 54)
    assert mined(path) == ({index: index for index in range(54)}, [])
