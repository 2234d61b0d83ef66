"""MPEG transport streams that lost packets or were joined by `cat`: what can be decoded is read, under its number."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.make_numbered import frames_read, make_numbered
from tests.media.read_frames import mined, tracked
from trackmill.pipeline.media.transport_stream import find_breaks
from trackmill.pipeline.media.video_headers import probe

PACKET = 188
PID = 256


def video_packets(data: bytes) -> list[int]:
    """Positions of the packets of the video stream."""
    return [at for at in range(0, len(data), PACKET) if (data[at + 1] & 0x1F) << 8 | data[at + 2] == PID]


def begins_frame(data: bytes, at: int) -> bool:
    return bool(data[at + 1] & 0x40)


def without(data: bytes, lost: list[int]) -> bytes:
    return b"".join(data[at : at + PACKET] for at in range(0, len(data), PACKET) if at not in lost)


def one_packet(data: bytes) -> bytes:
    packets = video_packets(data)
    return without(data, [next(at for at in packets[len(packets) // 2 :] if begins_frame(data, at))])


def several_frames(data: bytes) -> bytes:
    middle = len(video_packets(data)) // 2
    return without(data, video_packets(data)[middle : middle + 4])


def a_tail(data: bytes) -> bytes:
    """A packet in which a frame goes on."""
    packets = video_packets(data)
    return without(data, [next(at for at in packets[len(packets) // 2 :] if not begins_frame(data, at))])


def overwritten(data: bytes) -> bytes:
    at = len(data) // 2 // PACKET * PACKET
    return data[: at + 50] + bytes(950) + data[at + 1000 :]


def without_marks(data: bytes) -> bytes:
    changed = bytearray(data)
    for at in range(len(data) // 2 // PACKET * PACKET, len(data) // 2 + 6 * PACKET, PACKET):
        changed[at] = 0
    return bytes(changed)


@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("damage", [one_packet, several_frames, a_tail, overwritten, without_marks])
def test_frames_behind_a_loss_are_read_under_their_own_numbers(
    tmp_path: Path, damage: Callable[[bytes], bytes], bframes: int
) -> None:
    path = make_numbered(tmp_path / "a.ts", 96, gop=12, bframes=bframes)
    path.write_bytes(damage(path.read_bytes()))
    frames, problems, expected = tracked(path)
    assert expected == 96
    assert 80 <= len(frames) < 96 and {0, 35, 72, 95} <= set(frames)
    assert all(number == index for index, number in frames.items())
    assert problems and all("a.ts: frame" in text and "the next one that can is frame" in text for text in problems)
    stored, errors = mined(path)
    assert all(number == index for index, number in stored.items())
    assert len(stored) >= 72 and {0, 24, 72, 95} <= set(stored)
    assert errors and all("a.ts: frame" in text and "cannot be decoded" in text for text in errors)
    assert set(stored) <= set(frames)


@pytest.mark.parametrize("bframes", [0, 2])
def test_recordings_joined_by_cat_are_read_to_the_end(tmp_path: Path, bframes: int) -> None:
    first = make_numbered(tmp_path / "1.ts", 60, bframes=bframes).read_bytes()
    second = make_numbered(tmp_path / "2.ts", 36, bframes=bframes, first=60).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(first + second)
    assert (probe(str(path)).num_frames, probe(str(path)).fps) == (96, 24)
    assert tracked(path) == ({index: index for index in range(96)}, [], 96)
    assert mined(path) == ({index: index for index in range(96)}, [])
    times = [time for _, time in frames_read(path)]
    assert times == pytest.approx([index / 24 for index in range(96)], abs=0.002), "time goes on behind the joint"
    assert frames_read(path, [70]) == [(70, times[70])]


def test_pieces_whose_time_goes_on(tmp_path: Path) -> None:
    """As the segments of a broadcast over HTTP, which each count their packets from 0."""
    pieces = []
    for piece in range(3):
        part = tmp_path / f"{piece}.ts"
        times = [piece * 24 + step for step in range(24)]
        pieces.append(make_numbered(part, 24, times=times, first=24 * piece).read_bytes())
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(pieces))
    assert find_breaks(io.BytesIO(path.read_bytes()), PID), "packets seem to be missing at the joints"
    assert tracked(path) == ({index: index for index in range(72)}, [], 72)
    assert mined(path) == ({index: index for index in range(72)}, [])


def test_a_joined_recording_of_another_size(tmp_path: Path) -> None:
    first = make_numbered(tmp_path / "1.ts", 24).read_bytes()
    second = make_numbered(tmp_path / "2.ts", 24, first=24, size=(64, 320)).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(first + second)
    assert tracked(path) == ({index: index for index in range(48)}, [], 48)
    assert mined(path) == ({index: index for index in range(48)}, [])
    stored, (error,) = mined(path, frames_per_clip=16)
    assert sorted(stored) == [*range(16), *range(32, 48)] and "frame 24 is 64 x 320" in error


def test_a_joined_recording_whose_video_has_another_number(tmp_path: Path) -> None:
    first = make_numbered(tmp_path / "1.ts", 24).read_bytes()
    second = make_numbered(tmp_path / "2.ts", 24, first=24, options={"mpegts_start_pid": "300"}).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(first + second)
    frames, problems, expected = tracked(path)
    assert expected == 48 and len(frames) == 47 and len(problems) == 1
    assert all(number == index for index, number in frames.items())


def test_breaks(tmp_path: Path) -> None:
    data = make_numbered(tmp_path / "a.ts", 48).read_bytes()
    assert find_breaks(io.BytesIO(data), PID) == []
    packets = video_packets(data)
    for place in (20, 21, 22):
        (gap,) = find_breaks(io.BytesIO(without(data, [packets[place]])), PID)
        assert gap.position == packets[place + 1] - PACKET
    (gap,) = find_breaks(io.BytesIO(data + data), PID)
    assert gap.clean and len(data) <= gap.position < len(data) + 6 * PACKET
    with_time_codes = b"".join(b"\0\0\0\0" + data[at : at + PACKET] for at in range(0, len(data), PACKET))
    (gap,) = find_breaks(io.BytesIO(with_time_codes * 2), PID)
    assert gap.clean and len(with_time_codes) <= gap.position < len(with_time_codes) + 6 * 192
    assert find_breaks(io.BytesIO(b"no transport stream at all" * 99), PID) == []
    assert find_breaks(io.BytesIO(b""), PID) == []
