"""The index of an MP4 or MOV file is compared with the file before FFmpeg makes entries of what it declares."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest

from tests.make_media import make_video
from tests.make_numbered import make_numbered, with_edits
from trackmill.pipeline.media.errors import BadItem, FrameLimit
from trackmill.pipeline.media.mp4_index import check_index
from trackmill.pipeline.media.video_headers import probe
from trackmill.pipeline.media.videos import VideoReader
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.video_files import probe_all

N = 60_000_000


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def table(kind: bytes, *numbers: int, count: int) -> bytes:
    return box(kind, bytes(4), struct.pack(f">I{len(numbers)}I", count, *numbers))


def track(kind: bytes, *tables: bytes, edits: bytes = b"") -> bytes:
    times = struct.pack(">4I", 0, 0, 0, 1000)
    inside = box(b"mdia", box(b"mdhd", times), box(b"hdlr", bytes(8), kind), box(b"minf", box(b"stbl", *tables)))
    return box(b"trak", box(b"edts", edits), inside) if edits else box(b"trak", inside)


def movie(*parts: bytes) -> bytes:
    return box(b"ftyp", b"isom") + box(b"moov", box(b"mvhd", struct.pack(">4I", 0, 0, 0, 1000)), *parts)


def check(data: bytes, max_frames: int = 4_000_000) -> None:
    check_index(io.BytesIO(data), "x.mp4", max_frames)


def sizes(size: int, count: int) -> bytes:
    return box(b"stsz", struct.pack(">3I", 0, size, count))


def times(count: int, duration: int = 40) -> bytes:
    return table(b"stts", count, duration, count=1)


TOO_MUCH = {
    "samples of one size": (track(b"vide", sizes(1, N), times(N)), "stsz.* declares 60000000 samples"),
    "samples of a kilobyte": (track(b"vide", sizes(1000, 1000), times(1000)), "stsz.* declares 1000 samples"),
    "samples without a size": (track(b"vide", box(b"stsz", struct.pack(">3I", 0, 0, N))), "stsz.* declares 240000000"),
    "half a byte each": (track(b"vide", box(b"stz2", struct.pack(">3I", 0, 4, N))), "stz2.* declares 30000000 bytes"),
    "no bits each": (track(b"vide", box(b"stz2", struct.pack(">3I", 0, 0, N))), "stsz.* declares 60000000 samples"),
    "sound that has durations": (track(b"soun", sizes(1, N), times(N, 1024)), "stsz.* declares 60000000 samples"),
    "sound that is counted": (
        track(b"soun", sizes(1, N), times(N, 1), table(b"stsc", 1, N, 1, count=1), table(b"stco", 1, 2, 3, count=3)),
        "stsc.* declares 180000000 samples",
    ),
    "neither": (track(b"text", sizes(1, N), times(N)), "stsz.* declares 60000000 samples"),
    "sizes behind the handler": (
        box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", sizes(1, N))), box(b"hdlr", bytes(8), b"vide"))),
        "60000000 samples",
    ),
    "no track at all": (box(b"udta", sizes(1, N)), "60000000 samples"),
    "a fragment": (box(b"moof", box(b"traf", box(b"trun", struct.pack(">2I", 0, N)))), "trun.* 60000000 samples"),
    "fragments": (box(b"moof", *[box(b"traf", box(b"trun", struct.pack(">2I", 0, 200)))] * 9), "trun.* samples"),
    "places": (track(b"vide", table(b"stco", count=N)), "stco.* declares 240000000 bytes"),
    "long places": (track(b"vide", table(b"co64", count=N)), "co64.* declares 480000000 bytes"),
    "durations": (track(b"vide", table(b"stts", count=N)), "stts"),
    "offsets": (track(b"vide", table(b"ctts", count=N)), "ctts"),
    "edits": (track(b"vide", edits=table(b"elst", count=N)), "elst"),
    "long edits": (track(b"vide", edits=box(b"elst", b"\1\0\0\0" + struct.pack(">I", 7))), "elst"),
}


@pytest.mark.parametrize("case", TOO_MUCH)
@pytest.mark.parametrize("packed", ["plain", "compressed", "called free"])
def test_an_index_that_declares_more_than_the_file_holds_is_refused(case, packed):
    inside, message = TOO_MUCH[case]
    data = movie(inside)
    if packed == "compressed":
        moov = zlib.compress(data[data.index(b"moov") - 4 :])
        data = box(b"ftyp", b"qt  ") + box(b"moov", box(b"cmov", box(b"cmvd", bytes(4), moov)))
    elif packed == "called free":
        data = data.replace(b"moov", b"free", 1)
    with pytest.raises(BadItem, match=rf"x\.mp4: its index .*{message}"):
        check(data)


def test_a_compressed_index_is_not_unpacked_without_end():
    bomb = zlib.compress(bytes(100 << 20), 9)
    with pytest.raises(BadItem, match="its compressed index is larger than"):
        check(box(b"ftyp", b"qt  ") + box(b"moov", box(b"cmov", box(b"cmvd", bytes(4), bomb))))


def test_boxes_without_end_are_not_walked():
    deep = b""
    for _ in range(40):
        deep = box(b"moov", deep)
    with pytest.raises(BadItem, match="more boxes than any program writes, or deeper ones"):
        check(deep)
    check(box(b"ftyp", b"isom") + box(b"free", bytes(100)) + bytes(7) + b"\1")
    check(box(b"ftyp", b"isom") + struct.pack(">I", 7) + b"moov")


def test_sound_as_quicktime_counted_it_may_have_more_samples_than_bytes():
    tables = (times(3_000_000, 1), sizes(1, 3_000_000), table(b"stsc", 1, 3_000_000, 1, count=1))
    check(movie(track(b"soun", *tables, table(b"stco", 1, count=1))))


def test_more_frames_than_the_limit_are_refused_by_its_name():
    with pytest.raises(FrameLimit, match=r"has 5000000 frames, more than `read\.max_frames` = 4000000"):
        check(movie(track(b"vide", sizes(1, 5_000_000))) + bytes(5_000_000))


def test_edits_that_show_a_video_again_and_again_count(tmp_path):
    path = make_numbered(tmp_path / "a.mp4", 20)
    many = with_edits(path, [(833, 0)] * 50)
    shown = probe(str(many)).num_frames
    assert shown == 50 * 18, "with B-frames the first one comes two frames after time 0"
    with pytest.raises(FrameLimit, match=r"its edit list shows 20 samples so often that \d+ have to be read"):
        probe(str(many), max_frames=500)
    assert probe(str(many), max_frames=2000).num_frames == shown


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi", "a.ts", "a.flv"])
def test_every_container_is_held_to_the_limit(tmp_path, name):
    path = make_video(tmp_path / name, 12)
    (header,) = probe_all([str(path)], ReadSettings(max_frames=12))
    assert not isinstance(header, str) and header.num_frames == 12
    (said,) = probe_all([str(path)], ReadSettings(max_frames=11))
    assert isinstance(said, str) and "12 frames, more than `read.max_frames` = 11" in said
    with path.open("rb") as handle, pytest.raises(FrameLimit, match=r"more than `read\.max_frames` = 11"):
        VideoReader(handle, "x", max_pixels=10_000, longest_side=64, max_frames=11)


def test_a_crafted_video_is_refused_before_ffmpeg_looks(tmp_path: Path):
    path = make_video(tmp_path / "a.mp4", 5)
    data = bytearray(path.read_bytes())
    place = data.index(b"stsz")
    data[place + 8 : place + 16] = struct.pack(">II", 1, N)
    path.write_bytes(data)
    with pytest.raises(BadItem, match=r"a\.mp4: its index \(stsz\) declares 60000000 samples, more than a file of"):
        probe(str(path))
