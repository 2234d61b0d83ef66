"""What a child process does for tracking: it opens videos and pictures, and hands frames on in full size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.media.pictures import decode_picture, num_pictures
from trackmill.pipeline.media.videos import VideoFrame, VideoReader
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import open_for_seeking

# Frames are looked at in full: detections are in pixels of the original.
_FULL_SIZE = 1 << 30

_AT_ONCE_BYTES = 32 << 20
"""Of frames in one answer: the next ones are decoded while these are tracked."""


@dataclass(frozen=True, slots=True)
class OpenedVideo:
    """What is known of a video once it is open.

    Args:
        fps: frames per second; 0 where it is not known.
        num_frames: those that have an index.
        missing: frames behind them that it declares and does not hold.
    """

    fps: float
    num_frames: int
    missing: int


@dataclass(slots=True)
class VideoPart:
    """Some frames of a video, one after the other.

    Args:
        frames: in full size.
        next_index: of the frame that reading goes on with; None where it cannot, or where the video is at its end.
        problem: why the frame behind `frames` cannot be read; "" if it can.
    """

    frames: list[VideoFrame] = field(default_factory=list)
    next_index: int | None = None
    problem: str = ""


class FrameDecoder:
    """Reads what is to be tracked.

    Args:
        max_pixels: of a frame; more is refused before it is decoded.
        max_item_bytes: of a picture file.
    """

    def __init__(self, max_pixels: int, max_item_bytes: int) -> None:
        self._max_pixels = max_pixels
        self._max_item_bytes = max_item_bytes
        self._handle: IO[bytes] | None = None
        self._reader: VideoReader | None = None

    def open_video(self, url: str) -> OpenedVideo:
        """Open a video, and close the one before; a remote one is fetched in blocks as it is decoded.

        Raises:
            BadItem: not a video, or one without a readable frame.
            OSError: it could not be read.
        """
        self.close()
        self._handle = open_for_seeking(url)
        self._reader = VideoReader(self._handle, redact(url), max_pixels=self._max_pixels, longest_side=_FULL_SIZE)
        return OpenedVideo(self._reader.fps, self._reader.num_frames, self._reader.missing)

    def index_at(self, time_s: float) -> int:
        """Index of the first frame of the open video that is shown at `time_s` or later."""
        assert self._reader is not None, "no video is open"
        return self._reader.index_at(time_s)

    def time_of(self, index: int) -> float:
        """Seconds from the first frame of the open video to this one."""
        assert self._reader is not None, "no video is open"
        return self._reader.time_of(index)

    def read_video(self, index: int, stop: int | None = None) -> VideoPart:
        """The next frames of the open video, from `index` on and before `stop`; as many as fit into one answer.

        Raises:
            OSError: storage failed.
        """
        assert self._reader is not None, "no video is open"
        part, num_bytes = VideoPart(), 0
        end = self._reader.num_frames + self._reader.missing
        end = end if stop is None else min(end, stop)
        try:
            for frame in self._reader.read(range(index, end)):
                part.frames.append(frame)
                index, num_bytes = frame.index + 1, num_bytes + frame.image.nbytes
                if num_bytes >= _AT_ONCE_BYTES:
                    break
        except BadItem as error:
            part.problem, part.next_index = str(error), self._reader.next_start(index)
            if part.next_index is not None and part.next_index >= end:
                part.next_index = None
        else:
            part.next_index = index if index < end else None
        return part

    def read_picture(self, url: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB.

        Raises:
            BadItem: broken, too large, or no picture.
            OSError: it could not be fetched.
        """
        data = fetch_bytes(url, max_bytes=self._max_item_bytes)
        return decode_picture(data, redact(url), max_pixels=self._max_pixels, longest_side=_FULL_SIZE).image

    def count_pictures(self, url: str) -> int:
        """How many pictures a file holds; 1 where it cannot be read."""
        with open_for_seeking(url) as handle:
            return num_pictures(handle)

    def close(self) -> None:
        """Free the decoder and the file."""
        if self._reader is not None:
            self._reader.close()
        if self._handle is not None:
            self._handle.close()
        self._reader = self._handle = None
