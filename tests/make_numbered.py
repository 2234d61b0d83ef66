"""Videos whose frames carry their number as a bar code, so that index, order and pixels can be checked together."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.media.videos import VideoFrame, VideoReader

_BITS = 10


def numbered_picture(number: int, height: int = 32, width: int = 160) -> NDArray[np.uint8]:
    """(H, W, 3): ten vertical bars, bright where the number's bit is set, the lowest bit on the left, with noise."""
    bits = (np.full(_BITS, number) >> np.arange(_BITS)) & 1
    bars = np.where(bits, 210, 45).repeat(width // _BITS)
    noise = np.random.default_rng(number).integers(-40, 40, (height, bars.size, 1))
    return np.repeat(bars[None, :, None] + noise, 3, axis=2).astype(np.uint8)


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that a picture carries."""
    height, width = image.shape[:2]
    middle = image[height // 4 : -(height // 4)]
    edges = [(round((bit + 0.25) * width / _BITS), round((bit + 0.75) * width / _BITS)) for bit in range(_BITS)]
    return sum(int(middle[:, left:right].mean() > 128) << bit for bit, (left, right) in enumerate(edges))


def make_numbered(
    path: Path,
    num_frames: int,
    fps: Fraction | int = 24,
    gop: int = 12,
    bframes: int = 2,
    *,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    first: int = 0,
    size: tuple[int, int] = (32, 160),
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of the numbers from `first` on; see `tests.make_media.make_video` for the other arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = 1 / Fraction(fps)
        if codec == "libx264":
            groups = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={bframes}:b-adapt=0"
            stream.options = {"preset": "veryfast", "crf": "20", "x264-params": groups}
        elif codec != "flv1":
            stream.codec_context.max_b_frames = bframes
        for place in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_picture(first + place, *size), format="rgb24")
            frame.pts, frame.time_base = (place if times is None else times[place]), 1 / Fraction(fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def copy_packets(
    source: Path,
    target: Path,
    *,
    start_s: float = 0,
    stop_s: float | None = None,
    seek: bool = True,
    keep: Callable[[int], bool] = lambda place: True,
    container: str | None = None,
) -> Path:
    """The same packets in another file, as `ffmpeg -ss START -to STOP -i source -c copy target` copies them.

    Args:
        source, target: files.
        start_s: becomes time 0; the packets begin at the keyframe before it. Negative: what comes first is shown later.
        stop_s: packets from here on are left out.
        seek: False: all packets are copied, and only their times are moved.
        keep: packets to keep, by their place.
        container: format of the target, where its suffix does not tell it.
    """
    with av.open(str(source)) as given, av.open(str(target), "w", format=container) as made:
        stream = given.streams.video[0]
        copied = made.add_stream_from_template(stream)
        assert stream.time_base is not None
        if start_s > 0 and seek:
            given.seek(round(start_s / stream.time_base), stream=stream, backward=True)
        offset = round(start_s / stream.time_base)
        for place, packet in enumerate(given.demux(stream)):
            if packet.dts is None or packet.pts is None:
                continue
            if stop_s is not None and packet.dts * stream.time_base >= stop_s:
                break
            if keep(place):
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copied
                made.mux(packet)
    return target


def shown_by_a_player(path: Path) -> list[tuple[int, float]]:
    """Number and time of each frame that FFmpeg shows, in order, the first at time 0."""
    with av.open(str(path)) as container:
        frames = [(number_of(frame.to_ndarray(format="rgb24")), frame.time) for frame in container.decode(video=0)]
    return [(number, round((time or 0) - (frames[0][1] or 0), 3)) for number, time in frames]


def frames_read(path: Path, indices: Sequence[int] | None = None) -> list[tuple[int, float]]:
    """Number and time of each frame that our reader gives."""
    reader = VideoReader(io.BytesIO(path.read_bytes()), path.name, max_pixels=10**7, longest_side=4096)
    frames: Iterator[VideoFrame] = reader.read(range(reader.num_frames) if indices is None else indices)
    return [(number_of(frame.image), round(frame.time_s, 3)) for frame in frames]


def with_edits(path: Path, edits: Sequence[tuple[int, int]]) -> Path:
    """Give an MP4 whose index comes last another edit list: (duration in ms, first time in the media or -1) each."""
    data = path.read_bytes()
    body = struct.pack(">II", 0, len(edits))
    body += b"".join(struct.pack(">IiI", duration, time, 1 << 16) for duration, time in edits)
    new = struct.pack(">I4s", 8 + len(body), b"elst") + body
    place, boxes = 0, []
    for name in (b"moov", b"trak", b"edts", b"elst"):
        place = data.index(name, place)
        boxes.append(place - 4)
    begin = boxes[-1]
    old = int.from_bytes(data[begin : begin + 4], "big")
    changed = bytearray(data)
    for box in boxes[:-1]:
        changed[box : box + 4] = (int.from_bytes(data[box : box + 4], "big") + len(new) - old).to_bytes(4, "big")
    path.write_bytes(bytes(changed[:begin]) + new + bytes(changed[begin + old :]))
    return path
