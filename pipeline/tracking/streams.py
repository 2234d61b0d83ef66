"""Frames of what has no known end: a webcam, a camera in the network, a pipe.

Nothing can be read twice here, or out of order, so no part can be taken and offline mode is refused. Frames are decoded
in this process, since a pipe and a camera are its own; the limit of pixels holds all the same.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
from av.error import FFmpegError

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.tracking.frame_reader import DEFAULT_FPS, FrameReader
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame

STDIN = "-"
"""A pipe: `ffmpeg ... -f matroska - | trackmill track --video -`."""

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp")
"""Of live streams in a network; FFmpeg reads them."""

_TIMEOUT_S = (20.0, 20.0)
"""To connect, and for the next data: a camera that is switched off ends the run, with its results."""

_CAMERA = re.compile(r"(?:webcam:)?(\d{1,3})")


def is_stream(url: str) -> bool:
    """Whether `--video` names a stream: `-`, `0` (unless there is such a file), `webcam:0`, or `rtsp://...`."""
    if _CAMERA.fullmatch(url):
        return url.startswith("webcam:") or not os.path.exists(url)
    return url == STDIN or url.partition("://")[0].lower() in SCHEMES


def stream_name(url: str) -> str:
    """What the results of a stream are called: `stdin`, `webcam0`, or the end of its URL."""
    if url == STDIN:
        return "stdin"
    if camera := _CAMERA.fullmatch(url):
        return f"webcam{camera[1]}"
    parts = urlsplit(url)
    last = parts.path.rstrip("/").rpartition("/")[2] or parts.hostname or ""
    return re.sub(r"[^\w.-]+", "_", last).strip(".") or "stream"


class StreamFrames(FrameReader):
    """Frames as they come, until the stream ends.

    Args:
        url: see `is_stream`.
        max_pixels: of a frame; more is refused.

    Raises:
        BadItem: nothing that can be decoded comes; says why.
        InputError: cameras of this system cannot be opened by a number.
    """

    def __init__(self, url: str, max_pixels: int) -> None:
        self._url, self._max_pixels = url, max_pixels
        try:
            self._container = _open(url)
        except (FFmpegError, OSError) as error:
            raise BadItem(f"{redact(url)}: cannot be opened: {error.strerror or error}") from None
        if not self._container.streams.video:
            self._container.close()
            raise BadItem(f"{redact(url)}: holds no video")
        self._stream = self._container.streams.video[0]
        rate = self._stream.average_rate or self._stream.guessed_rate
        super().__init__(stream_name(url), float(rate) if rate else DEFAULT_FPS, 0)

    @property
    def last_number(self) -> int:
        """Nobody knows it.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self.name}: its frames are not known beforehand, so no part of it can be taken")

    def __iter__(self) -> Iterator[SourceFrame]:
        first: float | None = None
        last = 0.0
        index = 0
        try:
            for frame in self._container.decode(self._stream):
                if frame.width * frame.height > self._max_pixels:
                    size = f"{frame.width} x {frame.height}"
                    raise BadItem(f"{redact(self._url)}: a frame has {size} pixels, more than `read.max_pixels`")
                time_s = index / self.fps
                if frame.time is not None:
                    first = frame.time if first is None else first
                    if index and frame.time - first <= last:  # whoever sends has begun anew
                        first = frame.time - last - 1 / self.fps
                    time_s = frame.time - first
                last = time_s
                turns = frame.rotation // 90 % 4 if frame.rotation % 90 == 0 else 0
                upright = np.rot90(frame.to_ndarray(format="rgb24"), turns)
                yield SourceFrame(
                    index=index,
                    number=index + 1,
                    time_s=time_s,
                    image=np.ascontiguousarray(upright),
                    file_name=f"{self.name}/{index:06d}",
                )
                index += 1
        except FFmpegError as error:
            self.problems.append(f"{redact(self._url)}: broke off after {index} frames: {error.strerror}")
            self.num_frames = index + 1

    def close(self) -> None:
        """Let go of the camera, or hang up."""
        self._container.close()


class _Pipe:
    """Standard input as PyAV reads it: it must not try to seek."""

    name = STDIN

    def read(self, size: int) -> bytes:
        """The next bytes."""
        source: Any = sys.stdin.buffer
        data: bytes = source.read1(size)
        return data


def _open(url: str) -> Any:
    if url == STDIN:
        return av.open(_Pipe(), "r")
    camera = _CAMERA.fullmatch(url)
    if camera is None:
        options = {"rtsp_transport": "tcp"} if url.lower().startswith("rtsp") else {}
        return av.open(url, "r", options=options, timeout=_TIMEOUT_S)
    if sys.platform.startswith("linux"):
        return av.open(f"/dev/video{camera[1]}", "r", format="v4l2")
    if sys.platform == "darwin":
        return av.open(f"{camera[1]}:none", "r", format="avfoundation", options={"framerate": "30"})
    raise InputError(f"{url}: cameras are opened by a number on Linux and macOS; pipe one in: ffmpeg ... | --video -")
