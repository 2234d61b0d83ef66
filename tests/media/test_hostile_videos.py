"""Videos whose headers lie: about the size of frames, about places in the file, about how many frames there are."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError

from tests.make_media import make_video
from trackmill.pipeline.media import lost_packets, packet_index, transport_stream
from trackmill.pipeline.media.containers import open_video
from trackmill.pipeline.media.errors import BadItem, DamagedFrame, FrameLimit, PixelLimit
from trackmill.pipeline.media.packets import Packet
from trackmill.pipeline.media.transport_stream import Break
from trackmill.pipeline.media.video_headers import probe
from trackmill.pipeline.media.videos import VideoReader


def motion_jpeg(path: Path, height: int, width: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", 24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for level in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 80 * level, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.avi", "a.mov"])
@pytest.mark.parametrize(("max_pixels", "kind"), [(100_000, PixelLimit), (50_000, DamagedFrame), (2_000, DamagedFrame)])
def test_coded_pixels_beyond_the_limit_are_not_decoded_whatever_the_container_says(tmp_path, name, max_pixels, kind):
    path = motion_jpeg(tmp_path / name, 300, 400)
    data = path.read_bytes()
    for size in ("<2I", "<2H", ">2H", ">2I"):
        data = data.replace(struct.pack(size, 400, 300), struct.pack(size, 40, 30))
    path.write_bytes(data)
    with path.open("rb") as handle, pytest.raises(kind, match=rf"`read\.max_pixels` = {max_pixels}"):
        list(VideoReader(handle, "x", max_pixels=max_pixels, longest_side=64).read([0]))


def test_a_header_that_sends_ffmpeg_nowhere_is_no_error_of_the_storage(tmp_path):
    path = make_video(tmp_path / "a.asf", 5, codec="mpeg4")
    original = path.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(60):
        data = bytearray(original)
        for place in rng.integers(24, 900, 3):
            data[place] = rng.choice([0, 0x7F, 0x80, 0xFF])
        path.write_bytes(data)
        try:
            probe(str(path))
        except BadItem as error:
            assert "a.asf" in str(error)


def test_frames_of_a_byte_each_count(tmp_path):
    """Matroska's lacing puts 256 of them into one block."""
    path = make_video(tmp_path / "a.mkv", 3)
    data = path.read_bytes()
    laced = b"\xa3\x42\x04\x81\x00\x01\x82\xff" + b"\1" * 255 + bytes(256)  # a SimpleBlock of track 1
    path.write_bytes(data + b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff" + b"\xe7\x81\x09" + laced * 50)
    with pytest.raises(FrameLimit, match=r"more than `read\.max_frames` = 1000"):
        probe(str(path), max_frames=1000)


@pytest.mark.parametrize("where", ["list", "decode"])
def test_want_of_memory_is_no_damage(tmp_path, monkeypatch, where):
    path = make_video(tmp_path / "a.mkv", 5)

    class Starved(FFmpegError, MemoryError):  # as av.error.MemoryError is
        pass

    with path.open("rb") as handle:
        if where == "list":
            container, stream = open_video(handle, "x")

            class Container:
                format = container.format

                def demux(self, stream):
                    raise Starved(12, "Cannot allocate memory")

            with pytest.raises(MemoryError):
                list(packet_index._packets(Container(), stream))
            return
        reader = VideoReader(handle, "x", max_pixels=10_000, longest_side=64)

        def decode(keyframe):
            raise Starved(12, "Cannot allocate memory")

        monkeypatch.setattr(reader, "_decode", decode)
        with pytest.raises(MemoryError):
            list(reader.read([3]))


def test_a_transport_stream_out_of_step_at_every_turn_is_walked_to_its_end(tmp_path):
    data = make_video(tmp_path / "a.ts", 30).read_bytes()
    packets = [data[place : place + 188] for place in range(0, len(data), 188)] * 40
    runs = [b"".join(packets[place : place + 8]) for place in range(0, len(packets), 8)]
    breaks = transport_stream.find_breaks(io.BytesIO(b"x".join(runs)), 0x100)
    assert len(breaks) >= len(runs) - 2, "each strange byte is a break, but perhaps the last ones"


def test_breaks_without_number_hurt_each_frame_once():
    packets = [
        Packet(place, place, place, 188 * place, place == 0, shown=True, counted=True) for place in range(20_000)
    ]
    breaks = [Break(188 * place, clean=False) for place in range(2, 20_000)]
    assert lost_packets.damaged_packets(packets, breaks) == set(range(1, 20_000))
    near = lost_packets.near_breaks(set(), [breaks[0], breaks[-1]])
    assert near(packets[1], packets[2]) and not near(packets[2], packets[3]) and near(packets[50], packets[19_999])


@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
def test_a_video_damaged_in_more_places_than_anyone_would_count_is_none(tmp_path, monkeypatch, name):
    path = make_video(tmp_path / name, 10, times=[0, 1, 2, 3, 20, 21, 22, 23, 24, 25])
    piece = b"\x1f\x43\xb6\x75" if name == "a.mkv" else b"\x12\0\0\4\0\0\0\0\0\0\0abcd\0\0\0\x0fx"
    path.write_bytes(path.read_bytes() + piece * 400)
    assert probe(str(path)).num_frames >= 10
    monkeypatch.setattr(packet_index, "_MOST_DAMAGE", 20)
    with pytest.raises(BadItem, match=rf"{name}: is damaged in more than 20 places"):
        probe(str(path))
