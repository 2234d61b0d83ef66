"""Frames of a video are exact: the same pixels on every way to them, and an early end is noticed."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.make_media import make_scene, make_video
from trackmill.pipeline.media.errors import BadItem, PixelLimit, TruncatedMedia
from trackmill.pipeline.media.video_headers import probe
from trackmill.pipeline.media.videos import VideoReader

KINDS = {
    "plain": {"name": "a.mp4"},
    "no b-frames": {"name": "a.mp4", "bframes": 0},
    "open groups": {"name": "a.mp4", "open_gop": True, "bframes": 3},
    "one group": {"name": "a.mp4", "gop": 250},
    "variable rate": {"name": "a.mp4", "times": [i + (i // 3) * 4 for i in range(48)]},
    "matroska": {"name": "a.mkv"},
    "transport stream": {"name": "a.ts"},
    "webm": {"name": "a.webm", "codec": "libvpx-vp9"},
    "avi": {"name": "a.avi", "codec": "mpeg4", "bframes": 0},
    "avi with b-frames": {"name": "a.avi", "codec": "mpeg4"},
    "avi with h.264 and b-frames": {"name": "a.avi"},
    "mpeg-4 with b-frames": {"name": "a.mp4", "codec": "mpeg4"},
    "turned": {"name": "a.mp4", "rotation": 90},
}


def reader(data: bytes, longest_side: int = 1024, max_pixels: int = 10_000_000) -> VideoReader:
    return VideoReader(io.BytesIO(data), "file:///v.mp4", max_pixels=max_pixels, longest_side=longest_side)


@pytest.fixture(params=KINDS)
def video(request, tmp_path) -> bytes:
    options = dict(KINDS[request.param])
    return make_video(tmp_path / options.pop("name"), 48, **options).read_bytes()


def test_same_pixels_by_seeking_and_by_decoding_from_the_start(video):
    everything = [frame.image for frame in reader(video).read(range(48))]
    assert len(everything) == 48
    rng = np.random.default_rng(0)
    wandering = reader(video)
    for index in [47, 0, 31, 17, *rng.permutation(48)[:10].tolist()]:
        alone = next(reader(video).read([index]))
        again = next(wandering.read([index]))
        assert alone.index == again.index == index
        assert np.array_equal(alone.image, everything[index]), f"frame {index} reached by one seek"
        assert np.array_equal(again.image, everything[index]), f"frame {index} after others"


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_frames_are_in_order_of_presentation(tmp_path, name):
    video = make_video(tmp_path / name, 30, bframes=3, quality=10).read_bytes()
    scenes = np.stack([make_scene(64, 96, 0, i)[0].astype(int) for i in range(30)])
    for frame in reader(video).read(range(30)):
        nearest = np.abs(scenes - frame.image).mean(axis=(1, 2, 3)).argmin()
        assert nearest == frame.index


def test_neighbouring_clips_decode_each_frame_once(tmp_path):
    opened = reader(make_video(tmp_path / "a.mp4", 96, gop=8).read_bytes())
    list(opened.read(range(0, 48, 4)))
    list(opened.read(range(48, 96, 4)))
    assert opened.decoded <= 96


def test_far_target_is_reached_by_a_seek(tmp_path):
    opened = reader(make_video(tmp_path / "a.mp4", 96, gop=8).read_bytes())
    list(opened.read([0, 90]))
    assert opened.decoded < 30


def test_times_are_those_of_the_file(tmp_path):
    times = [0, 1, 5, 6, 20]
    path = make_video(tmp_path / "a.mp4", 5, 10, times=times)
    frames = list(reader(path.read_bytes()).read(range(5)))
    assert [frame.time_s for frame in frames] == pytest.approx([time / 10 for time in times])


def test_rotation_is_applied_counterclockwise(tmp_path):
    straight = make_video(tmp_path / "a.mp4", 1, quality=5).read_bytes()
    expected = next(reader(straight).read([0])).image
    for degrees in (90, 180, 270):
        turned = make_video(tmp_path / "b.mp4", 1, quality=5, rotation=degrees).read_bytes()
        frame = next(reader(turned).read([0]))
        assert frame.rotated and (frame.height, frame.width) == frame.image.shape[:2]
        assert np.array_equal(frame.image, np.rot90(expected, degrees // 90))


def test_frames_are_scaled_as_they_are_decoded(tmp_path):
    frame = next(reader(make_video(tmp_path / "a.mp4", 2).read_bytes(), longest_side=48).read([1]))
    assert frame.image.shape == (32, 48, 3) and (frame.height, frame.width) == (64, 96)


def test_early_end_is_named_and_what_is_there_can_be_read(tmp_path):
    whole = make_video(tmp_path / "a.mp4", 48, faststart=True).read_bytes()
    assert whole.find(b"moov") < whole.find(b"mdat")
    opened = reader(whole[: len(whole) * 3 // 4])
    assert 8 < opened.num_frames < 48 and opened.missing == 48 - opened.num_frames
    first = next(opened.read([0])).image
    assert np.array_equal(first, next(reader(whole).read([0])).image)
    with pytest.raises(TruncatedMedia, match=r"v\.mp4 ends early: frame 47 of 48"):
        list(opened.read([0, 47]))


def test_mp4_without_its_index_was_cut_short(tmp_path):
    data = make_video(tmp_path / "a.mp4", 24).read_bytes()
    cut = data[: data.find(b"moov") - 4] if data.find(b"moov") > data.find(b"mdat") else data[:200]
    with pytest.raises(TruncatedMedia, match="cut short"):
        reader(cut)


def test_damage_in_the_middle_is_noticed_and_the_rest_can_be_read(tmp_path):
    path = make_video(tmp_path / "a.mp4", 96, gop=8)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        damaged = [packet.pos for packet in container.demux(video=0) if packet.size][40:48]
    for position in damaged:
        data[position + 4 : position + 40] = bytes(36)
    opened = reader(bytes(data))
    with pytest.raises(TruncatedMedia, match=r"v\.mp4"):
        list(opened.read(range(40, 48)))
    expected = next(reader(path.read_bytes()).read([80])).image
    assert np.array_equal(next(opened.read([80])).image, expected)


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", TruncatedMedia, "empty"),
        (b"no video at all, only text " * 20, BadItem, "not a video"),
        # A playlist would make FFmpeg open whatever it names.
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n", BadItem, "known"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", BadItem, "known"),
    ],
    ids=["empty", "text", "playlist", "concat"],
)
def test_what_is_no_video_is_refused(data, error, text):
    with pytest.raises(error, match=text):
        reader(data)


def test_pixel_limit_is_checked_before_decoding(tmp_path):
    data = make_video(tmp_path / "a.mp4", 2).read_bytes()
    with pytest.raises(PixelLimit, match="96 x 64"):
        reader(data, max_pixels=64 * 96 - 1)
    assert next(reader(data, max_pixels=64 * 96).read([0])).image.shape == (64, 96, 3)


def test_vp8_packets_that_show_nothing_are_no_frames(tmp_path):
    path = make_video(tmp_path / "a.webm", 12, codec="libvpx", bframes=0, gop=100)
    out = io.BytesIO()
    with av.open(str(path)) as source, av.open(out, "w", "webm") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for position, packet in enumerate(source.demux(video=0)):
            if packet.dts is None:
                continue
            body = bytearray(bytes(packet))
            if position == 5:
                body[0] &= ~0x10
            copy = av.Packet(bytes(body))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe = packet.is_keyframe
            copy.stream = stream
            target.mux(copy)
    opened = reader(out.getvalue())
    assert opened.num_frames == 11
    assert [frame.index for frame in opened.read(range(11))] == list(range(11))


@pytest.mark.parametrize(
    ("name", "exact", "options"),
    [
        ("a.mp4", True, {}),
        ("a.mov", True, {}),
        ("a.mkv", False, {}),
        ("a.avi", False, {"codec": "mpeg4", "bframes": 0}),
    ],
)
def test_probe(tmp_path, name, exact, options):
    header = probe(str(make_video(tmp_path / name, 30, Fraction(30000, 1001), **options)))
    assert (header.num_frames, header.exact) == (30, exact)
    assert header.fps == pytest.approx(29.97, abs=0.05)
    assert (header.height, header.width) == (64, 96)


def test_probe_says_why_it_cannot(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"not a video" * 9)
    with pytest.raises(BadItem, match=r"x\.mp4"):
        probe(str(path))
    with pytest.raises(FileNotFoundError):
        probe(str(tmp_path / "missing.mp4"))


def test_codec_that_nobody_knows_is_named(tmp_path):
    data = make_video(tmp_path / "a.mp4", 4).read_bytes().replace(b"avc1", b"zzzz")
    with pytest.raises(BadItem, match="codec"):
        reader(data)


def test_duration_that_cannot_be_true_is_not_believed(tmp_path):
    path = make_video(tmp_path / "a.mkv", 4)
    data = bytearray(path.read_bytes())
    place = data.index(b"\x44\x89\x88") + 3  # Matroska's Duration, a float of eight bytes
    data[place : place + 8] = struct.pack(">d", 1e14)
    path.write_bytes(bytes(data))
    assert probe(str(path)).num_frames == 4, "its packets are counted"
    path.write_bytes(bytes(data[:-50]))
    with pytest.raises(BadItem, match="more than such a file can hold"):
        probe(str(path))
