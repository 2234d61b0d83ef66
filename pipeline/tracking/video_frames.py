"""The frames of a video file, by number and by time; damaged ones are lost, and those that refer to them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trackmill.pipeline.isolation.limits import LimitReached
from trackmill.pipeline.isolation.remote_object import Calls
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.videos import VideoFrame
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.tracking.decoding import OpenedVideo, VideoPart
from trackmill.pipeline.tracking.frame_reader import DEFAULT_FPS, FrameReader, name_of
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame

_MOST_IN_A_ROW = 5
"""Places behind damage at which decoding is tried before a video is given up: each try may read the whole file."""


class VideoFrames(FrameReader):
    """Every frame of a video file.

    Args:
        url: of the file.
        decoder: see `ReadLimits.decoder`; closed with this reader.
    """

    def __init__(self, url: str, decoder: Calls) -> None:
        self._url, self._decoder = url, decoder
        try:
            opened: OpenedVideo = decoder.call("open_video", url)
        except LimitReached as error:
            raise BadItem(f"{redact(url)}: {error}") from None
        self._fps = opened.fps
        super().__init__(name_of(url), opened.fps or DEFAULT_FPS, opened.num_frames + opened.missing)
        self._first, self._stop = 0, self.num_frames

    @property
    def first_number(self) -> int:
        """See `FrameReader.first_number`."""
        return self._first + 1

    @property
    def last_number(self) -> int:
        """See `FrameReader.last_number`."""
        return self._stop

    def number_at(self, time_s: float) -> int:
        """See `FrameReader.number_at`; of a variable frame rate by the times of its frames."""
        if not self._fps:
            return math.ceil(round(time_s * self.fps, 3)) + 1
        place: int = self._decoder.call("index_at", time_s)
        return place + 1

    def keep_numbers(self, first: int, last: int | None) -> None:
        """See `FrameReader.keep_numbers`; decoding begins at the keyframe before the first one."""
        self._first = max(self._first, first - 1)
        self._stop = self._stop if last is None else min(self._stop, last)
        self.num_frames = max(0, self._stop - self._first)
        self.begin_s = self._decoder.call("time_of", self._first) if self._fps else self._first / self.fps

    def read_as(self, other: FrameReader) -> None:
        """See `FrameReader.read_as`."""
        super().read_as(other)
        if isinstance(other, VideoFrames):
            self._first, self._stop = other._first, other._stop

    def __iter__(self) -> Iterator[SourceFrame]:
        index: int | None = self._first
        in_a_row = 0
        self._decoder.ask("read_video", index, self._stop)
        while index is not None:
            try:
                part: VideoPart = self._decoder.answer()
                in_a_row = (0 if part.frames else in_a_row) + bool(part.problem)
                index = part.next_index if in_a_row < _MOST_IN_A_ROW else None
                if index is not None:
                    self._decoder.ask("read_video", index, self._stop)
            except LimitReached as error:
                self.problems.append(f"{redact(self._url)}: the frames from {index} on are left out: {error}")
                return
            yield from map(self._frame, part.frames)
            if part.problem:
                goes_on = f"; the next one that can is frame {index}" if index is not None else ""
                self.problems.append(f"{part.problem}{goes_on}")

    def frame(self, number: int) -> SourceFrame:
        """See `FrameReader.frame`; decoding begins at the keyframe before it."""
        if not self.first_number <= number <= self.last_number:
            raise InputError(f"{self.name}: no frame {number}: they are {self.first_number} to {self.last_number}")
        try:
            part: VideoPart = self._decoder.call("read_video", number - 1, number)
        except LimitReached as error:
            raise BadItem(f"{redact(self._url)}: {error}") from None
        if not part.frames:
            raise BadItem(part.problem or f"{redact(self._url)}: frame {number} is missing")
        return self._frame(part.frames[0])

    def _frame(self, frame: VideoFrame) -> SourceFrame:
        return SourceFrame(
            index=frame.index,
            number=frame.index + 1,
            time_s=frame.time_s if self._fps else frame.index / self.fps,
            image=frame.image,
            file_name=f"{self.name}/{frame.index:06d}",
        )

    def close(self) -> None:
        """Free the decoder and the file."""
        self._decoder.close()
