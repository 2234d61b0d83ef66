"""Exact frames of a video: frame i is the one with the i-th smallest presentation time, however it is reached.

The packets of the video stream are listed once, without decoding. Their times, sorted, are the frames; so a variable
frame rate needs no arithmetic, and a file that ends early is noticed. What an edit list hides is decoded, since shown
frames refer to it, but is no frame: index 0 is what a player shows first. Decoding runs in one thread, which gives the
same pixels every time on one build of FFmpeg.

Not done, on purpose: interlaced video is not split into fields, non-square pixels are not stretched, and a display
matrix is followed for turns by 90, 180 and 270 degrees only, not for mirroring.
"""

from __future__ import annotations

import bisect
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image

from trackmill.pipeline.media.containers import open_video
from trackmill.pipeline.media.errors import DamagedFrame, PixelLimit, TruncatedMedia
from trackmill.pipeline.media.limits import MAX_FRAMES
from trackmill.pipeline.media.packet_index import UNKNOWN_PLACE, Keyframe, list_packets
from trackmill.pipeline.media.pictures import scale_pixels

# A seek throws away what is in the decoder's pipeline, and B-frames make it some frames deep: for less than this many
# frames, decoding on is as fast.
_WORTH_A_SEEK = 16

_ROUNDING_S = 0.0006
"""Containers that count in milliseconds are off by half of one."""


@dataclass(slots=True, kw_only=True)
class VideoFrame:
    """One frame.

    Args:
        index: its place in presentation order.
        time_s: since the first frame.
        image: (H, W, 3) uint8 RGB, turned upright and scaled.
        height, width: before scaling, upright.
        rotated: whether it was turned.
    """

    index: int
    time_s: float
    image: NDArray[np.uint8]
    height: int
    width: int
    rotated: bool


class VideoReader:
    """Random access to the frames of one open video.

    It remembers where it is: reading on decodes every frame once, and a seek is made only where that saves work.

    Args:
        handle: the file, seekable; it must stay open as long as the reader is used.
        name: URI, for the errors.
        max_pixels: refused, before decoding, when the header declares more in one frame.
        longest_side: frames are scaled down to it as they are decoded, so a clip of them is never held at full size.
        max_frames: refused when there are more, since what is known of each takes memory.

    Raises:
        FrameLimit: more than `max_frames`.
        PixelLimit: more than `max_pixels`.
        TruncatedMedia: the index of the file is missing, or no packet is left.
        BadItem: not a video of a known container.
    """

    def __init__(
        self, handle: IO[bytes], name: str, *, max_pixels: int, longest_side: int, max_frames: int = MAX_FRAMES
    ) -> None:
        self._handle = handle
        self._name = name
        self._max_pixels = max_pixels
        self._max_frames = max_frames
        self._longest_side = longest_side
        self._frames: Iterator[av.VideoFrame] | None = None
        self._reached = -1
        self.decoded = 0
        """How many frames have left the decoder so far."""
        self._open()
        size = self._stream.codec_context
        self._check_pixels(size.height, size.width)
        self._index = list_packets(self._container, self._stream, self._handle, self._name, max_frames)
        self.fps = self._index.fps
        self.num_frames = self._index.num_frames
        self.missing = self._index.missing
        """Frames that the header declares and the file does not hold."""
        if not self.num_frames:
            raise TruncatedMedia(f"{self._name}: the video ends before its first frame")

    def close(self) -> None:
        """Free the decoder; the handle stays open."""
        self._frames = None
        self._container.close()

    def read(self, indices: Sequence[int]) -> Iterator[VideoFrame]:
        """Decode some frames, one at a time.

        Args:
            indices: increasing frame numbers.

        Raises:
            TruncatedMedia: the video ends, or cannot be decoded any further, before one of them, or one is damaged.
            PixelLimit: a frame turns out larger than the header said.
        """
        for index in indices:
            yield self._convert(self._fetch(index), index)

    def time_of(self, index: int) -> float:
        """Seconds from the first frame to this one; 0 where neither times nor a frame rate are known."""
        times = self._index.times
        if times is None or index >= len(times):
            return index / self.fps if self.fps else 0.0
        assert self._stream.time_base is not None, "presentation times are counted in it"
        return float((times[index] - times[0]) * self._stream.time_base)

    def index_at(self, time_s: float) -> int:
        """Index of the first frame that is shown at `time_s` or later, a millisecond of rounding aside."""
        total = self.num_frames + self.missing
        return bisect.bisect_left(range(total), time_s - _ROUNDING_S, key=self.time_of)

    def next_start(self, index: int) -> int | None:
        """Where reading can go on behind a frame that could not be decoded; None: nowhere."""
        return self._index.next_start(index)

    def _open(self) -> None:
        self._container, self._stream = open_video(
            self._handle, self._name, max_frames=self._max_frames, max_pixels=self._max_pixels
        )

    def _fetch(self, index: int) -> av.VideoFrame:
        total = self.num_frames + self.missing
        if index >= self.num_frames:
            raise TruncatedMedia(f"{self._name} ends early: frame {index} of {total} is not there")
        if index in self._index.unreadable:
            raise DamagedFrame(f"{self._name}: frame {index} of {total} cannot be decoded: data is missing there")
        self._reason = ""
        # Each way begins earlier than the one before, so whether a frame can be had never depends on what was read
        # before it.
        for begin in self._beginnings(index):
            try:
                begin()
                frame = self._decode_to(index)
            except MemoryError:
                raise
            except FFmpegError as error:
                self._frames, self._reason = None, str(error.strerror)
                continue
            if frame is not None and not frame.is_corrupt:
                return frame
            self._reason = self._reason if frame is None else "its data is damaged"
        self._frames = None
        reason = self._reason or "the decoder leaves it out"
        if reason == os.strerror(errno.EINVAL):
            # All that FFmpeg says where coded pixels are more than twice the limit, which it was given.
            reason = f"it is damaged, or has far more pixels than `read.max_pixels` = {self._max_pixels}"
        raise DamagedFrame(f"{self._name}: frame {index} of {total} cannot be decoded: {reason}")

    def _beginnings(self, index: int) -> Iterator[Callable[[], None]]:
        keyframes = self._index.keyframes
        row = bisect.bisect_right(keyframes, index, key=lambda keyframe: keyframe.index) - 1
        nearest = keyframes[row] if row >= 0 else None
        ahead = self._frames is not None and self._reached < index
        if ahead and (nearest is None or nearest.index - self._reached <= _WORTH_A_SEEK):
            yield lambda: None
        if nearest is not None and nearest.index > 0:
            yield partial(self._seek, nearest)
        yield self._restart

    def _restart(self) -> None:
        # Opened anew: not every container can seek to its very first packet.
        self._container.close()
        self._open()
        self._reached = -1
        self._frames = self._decode(None)

    def _seek(self, keyframe: Keyframe) -> None:
        # The index of an AVI file goes by decoding time, the others' by presentation time.
        by_pts = "avi" not in self._container.format.name
        time = keyframe.pts if by_pts or keyframe.dts is None else keyframe.dts
        self._container.seek(time, stream=self._stream, backward=True)
        self._frames = self._decode(keyframe)

    def _decode(self, keyframe: Keyframe | None) -> Iterator[av.VideoFrame]:
        sought, known = keyframe, self._index
        hurt = False
        begin: int | None = None
        for place, packet in enumerate(self._container.demux(self._stream)):
            if keyframe is None and packet.pts is not None and known.shifts:
                shift = known.shift_at(place)
                packet.pts, packet.dts = packet.pts + shift, None if packet.dts is None else packet.dts + shift
            if keyframe is not None:
                place = known.places.get((packet.pts, packet.dts), UNKNOWN_PLACE)
            if sought is not None and packet.pts is not None:
                # A seek may land anywhere; behind the keyframe it would give wrong pixels, so nothing is decoded.
                if place > sought.place or not packet.is_keyframe:
                    return
                sought = None
            # An empty packet would tell the decoder that the video is over.
            if packet.size == 0 and packet.pts is not None:
                continue
            if packet.is_corrupt and "mpegts" not in self._container.format.name:
                continue
            if place in known.untrusted:
                continue
            # Behind an error nothing is decoded that may refer to what was lost.
            if packet.size and packet.is_keyframe:
                begin, hurt = (packet.pts if hurt else None), False
            elif packet.size and (hurt or (begin is not None and packet.pts is not None and packet.pts < begin)):
                continue
            try:
                yield from packet.decode()
            except MemoryError:
                raise
            except FFmpegError as error:
                self._reason, hurt = str(error.strerror), True

    def _decode_to(self, index: int) -> av.VideoFrame | None:
        assert self._frames is not None
        for frame in self._frames:
            self.decoded += 1
            if self._index.times is None:
                position: int | None = self._reached + 1
            else:
                position = None if frame.pts is None else self._index.index_of(frame.pts)
            if position is None:
                continue
            self._reached = position
            if position >= index:
                return frame if position == index else None
        self._frames = None
        return None

    def _convert(self, frame: av.VideoFrame, index: int) -> VideoFrame:
        self._check_pixels(frame.height, frame.width)
        pixels = frame.to_ndarray(format="rgb24")
        turns = frame.rotation // 90 % 4 if frame.rotation % 90 == 0 else 0
        image = np.rot90(pixels, turns)
        scaled = scale_pixels(Image.fromarray(np.ascontiguousarray(image)), self._longest_side)
        return VideoFrame(
            index=index,
            time_s=self.time_of(index),
            image=np.array(scaled, np.uint8),
            height=image.shape[0],
            width=image.shape[1],
            rotated=turns != 0,
        )

    def _check_pixels(self, height: int, width: int) -> None:
        if height * width > self._max_pixels:
            raise PixelLimit(
                f"{self._name}: declares frames of {width} x {height} = {width * height} pixels, more than "
                f"`read.max_pixels` = {self._max_pixels}"
            )
