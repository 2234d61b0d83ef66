"""Opening the container of a video safely, and what it says about its video stream."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import IO

import av
from av.error import FFmpegError
from av.stream import Disposition

from trackmill.pipeline.media import avi
from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.media.limits import MAX_FRAMES, MAX_PIXELS
from trackmill.pipeline.media.mp4_index import check_index

# Only formats that hold their own pixels. FFmpeg also reads playlists, whatever their file is called, and would fetch
# any URL that one names.
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,apng"

_STILLS = ("mjpeg", "png", "bmp", "webp", "tiff")

MOST_FPS = 300.0
"""A stated rate above it is measured instead: it is the unit of time stamps, not the rate of a camera."""


def average_rate(times: Sequence[int], stream: av.VideoStream) -> float:
    """Frames per second of presentation times in the stream's own unit; 0 for fewer than two."""
    if len(times) < 2 or not stream.time_base or max(times) == min(times):
        return 0.0
    return (len(times) - 1) / float((max(times) - min(times)) * stream.time_base)


def open_video(
    handle: IO[bytes], name: str, *, max_frames: int = MAX_FRAMES, max_pixels: int = MAX_PIXELS
) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open the first video stream of a file that is no cover picture.

    Args:
        handle: seekable; it must stay open as long as the container is used.
        name: URI, for the errors.
        max_frames: refused, before FFmpeg looks, where the index of an MP4 or MOV declares more.
        max_pixels: of one frame; nothing larger is decoded, neither to find out what the stream is nor later.

    Raises:
        FrameLimit: more than `max_frames`.
        TruncatedMedia: empty, or an MP4 without its index.
        BadItem: not a video, or pictures alone.
    """
    handle.seek(0)
    head = handle.read(12)
    if not head:
        raise TruncatedMedia(f"{name}: the file is empty")
    check_index(handle, name, max_frames)
    handle.seek(0)
    # The coded pixels may claim another size than the container; twice leaves room for a decoder's padding.
    limits = {"max_pixels": str(2 * max_pixels), "threads": "1"}
    # A transport stream may be joined from pieces that number their streams differently.
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none", "merge_pmt_versions": "1", **limits}
    try:
        container = av.open(_Seeking(handle), "r", options=options, metadata_errors="ignore")
    except MemoryError:
        raise
    except FFmpegError as error:
        if head[4:8] == b"ftyp":
            raise TruncatedMedia(f"{name}: no index (moov) in this MP4 or MOV file; was it cut short?") from error
        raise BadItem(f"{name}: not a video of a known container: {error.strerror}") from error
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams:
        covers = len(container.streams.video)
        container.close()
        raise BadItem(f"{name}: holds no video stream" + (", only a cover picture" if covers else ""))
    # Matroska does not always mark a cover picture that comes first.
    stream = next(
        (each for each in streams if each.codec_context and each.codec_context.name not in _STILLS), streams[0]
    )
    if stream.codec_context is None:
        container.close()
        raise BadItem(f"{name}: the video is in a codec that this build of FFmpeg cannot decode")
    # One thread: the number of threads is limited by worker, and some decoders differ by it where data is damaged.
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": limits["max_pixels"]}
    return container, stream


class _Seeking:
    """A file as FFmpeg reads it: damaged headers send it to places that no file has, which ends that attempt alone."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.read, self.tell = handle.read, handle.tell
        self._seek = handle.seek

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position; -1, which FFmpeg takes for an error, where there is no such place."""
        try:
            return self._seek(offset, whence)
        except (ValueError, OverflowError):
            return -1
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return -1


def shown_samples(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Frames in the sample table that no edit list hides; 0 without a table, as in a fragmented file."""
    if "mp4" not in container.format.name or not stream.frames:
        return 0
    return sum(not entry.is_discard for entry in stream.index_entries)


def declared_frames(container: av.container.InputContainer, stream: av.VideoStream, handle: IO[bytes]) -> int:
    """Frames that the container counts itself; 0 where it does not.

    The header of an AVI counts empty chunks too, which stand for the frame before; its index, where there is one, does
    not have them. To be asked before packets are read, since FFmpeg makes an index of what it reads.
    """
    shown = shown_samples(container, stream)
    if shown or container.format.name != "avi" or not avi.has_index(handle):
        return shown or stream.frames
    return min(stream.frames, len(stream.index_entries)) or stream.frames


def frame_rate(stream: av.VideoStream) -> float:
    """Average frames per second; 0 where it is not stated."""
    return float(stream.average_rate or stream.guessed_rate or 0)
