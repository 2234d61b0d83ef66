"""What a video says about itself before anything is decoded: for planning, and for opening it safely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import av
from av.error import FFmpegError

from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.storage.files import open_for_seeking

# Only formats that hold their own pixels. FFmpeg also reads playlists, whatever their file is called, and would fetch
# any URL that one names.
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"

MOST_FPS = 300.0
"""A stated rate above it is measured instead: it is the unit of time stamps, not the rate of a camera."""

# Four days at 30 frames a second. A damaged duration must not decide how many clips are planned.
_MOST_FRAMES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoHeader:
    """What a video says about itself.

    Args:
        num_frames: how many frames it has; an estimate unless `exact`.
        exact: counted in the sample table of an MP4 or MOV file.
        fps: average frame rate; 0 where it is not known.
        height, width: of the coded picture, before any display rotation.
    """

    num_frames: int
    exact: bool
    fps: float
    height: int
    width: int


def probe(url: str) -> VideoHeader:
    """Read a video's header; of a remote file only the blocks that are touched are fetched.

    Where the header says no length (a recording that was piped, or cut off by a crash), or a rate that no camera has
    (the 1000 of many WebM files), the packets are counted, for which the whole file is read.

    Raises:
        BadItem: not a video, no video stream in it, or a header that cannot be true.
        OSError: could not be fetched.
    """
    with open_for_seeking(url) as handle:
        container, stream = open_video(handle, url)
        with container:
            context = stream.codec_context
            fps = frame_rate(stream)
            shown = shown_samples(container, stream)
            count = shown
            if not count and stream.frames:
                count = stream.frames
            elif not count and stream.duration and stream.time_base:
                count = round(float(stream.duration * stream.time_base) * fps)
            elif not count and container.duration:
                count = round(container.duration / av.time_base * fps)
            if not shown and (not count or not fps or fps > MOST_FPS):
                counted, measured = _count_packets(container, stream)
                count, fps = counted or count, measured or fps
            if count > min(_MOST_FRAMES, handle.seek(0, 2)):
                raise BadItem(f"{url}: its header declares {count} frames, more than such a file can hold")
            return VideoHeader(num_frames=count, exact=shown > 0, fps=fps, height=context.height, width=context.width)


def _count_packets(container: av.container.InputContainer, stream: av.VideoStream) -> tuple[int, float]:
    """Number of packets of a stream, and their average rate; 0 where they have no times."""
    times: list[int] = []
    count = 0
    try:
        for packet in container.demux(stream):
            if packet.size:
                count += 1
                if packet.pts is not None:
                    times.append(packet.pts)
    except FFmpegError:
        pass  # what can be read counts
    return count, average_rate(times, stream)


def average_rate(times: Sequence[int], stream: av.VideoStream) -> float:
    """Frames per second of presentation times in the stream's own unit; 0 for fewer than two."""
    if len(times) < 2 or not stream.time_base or max(times) == min(times):
        return 0.0
    return (len(times) - 1) / float((max(times) - min(times)) * stream.time_base)


def open_video(handle: IO[bytes], name: str) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open the first video stream of a file.

    Args:
        handle: seekable; it must stay open as long as the container is used.
        name: URI, for the errors.

    Raises:
        TruncatedMedia: empty, or an MP4 without its index.
        BadItem: not a video.
    """
    handle.seek(0)
    head = handle.read(12)
    if not head:
        raise TruncatedMedia(f"{name}: the file is empty")
    handle.seek(0)
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
    try:
        container = av.open(handle, "r", options=options, metadata_errors="ignore")
    except FFmpegError as error:
        if head[4:8] == b"ftyp":
            raise TruncatedMedia(f"{name}: no index (moov) in this MP4 or MOV file; was it cut short?") from error
        raise BadItem(f"{name}: not a video of a known container: {error.strerror}") from error
    if not container.streams.video:
        container.close()
        raise BadItem(f"{name}: holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise BadItem(f"{name}: the video is in a codec that this build of FFmpeg cannot decode")
    # One thread: the number of threads is limited by worker, and some decoders differ by it where data is damaged.
    stream.codec_context.thread_count = 1
    return container, stream


def shown_samples(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Frames in the sample table that no edit list hides; 0 without a table, as in a fragmented file."""
    if "mp4" not in container.format.name or not stream.frames:
        return 0
    return sum(not entry.is_discard for entry in stream.index_entries)


def frame_rate(stream: av.VideoStream) -> float:
    """Average frames per second; 0 where it is not stated."""
    return float(stream.average_rate or stream.guessed_rate or 0)
