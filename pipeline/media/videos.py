"""Exact frames of a video: frame i is the one with the i-th smallest presentation time, however it is reached.

The packets of the video stream are listed once, without decoding. Their times, sorted, are the frames; so a variable
frame rate needs no arithmetic, and a file that ends early is noticed. What an edit list hides is decoded, since shown
frames refer to it, but is no frame: index 0 is what a player shows first. Decoding runs in one thread, which gives the
same pixels every time on one build of FFmpeg.

Not done, on purpose: interlaced video is not split into fields, non-square pixels are not stretched, and a display
matrix is followed for turns by 90, 180 and 270 degrees only, not for mirroring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image

from trackmill.pipeline.media.errors import PixelLimit, TruncatedMedia
from trackmill.pipeline.media.matroska import missing_bytes
from trackmill.pipeline.media.pictures import scale_pixels
from trackmill.pipeline.media.video_headers import MOST_FPS, average_rate, frame_rate, open_video, shown_samples

# A seek throws away what is in the decoder's pipeline, and B-frames make it some frames deep: for less than this many
# frames, decoding on is as fast.
_WORTH_A_SEEK = 16


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


@dataclass(frozen=True, slots=True)
class _Packet:
    """A coded frame: its times in the stream's unit, whether decoding can begin at it, and whether it is shown."""

    pts: int | None
    dts: int | None
    is_key: bool
    shown: bool


@dataclass(frozen=True, slots=True)
class _Keyframe:
    """A frame that decoding can begin at: its index, where it stands among the packets, and its times."""

    index: int
    order: int
    pts: int
    dts: int | None


class VideoReader:
    """Random access to the frames of one open video.

    It remembers where it is: reading on decodes every frame once, and a seek is made only where that saves work.

    Args:
        handle: the file, seekable; it must stay open as long as the reader is used.
        name: URI, for the errors.
        max_pixels: refused, before decoding, when the header declares more in one frame.
        longest_side: frames are scaled down to it as they are decoded, so a clip of them is never held at full size.

    Raises:
        PixelLimit: more than `max_pixels`.
        TruncatedMedia: the index of the file is missing, or no packet is left.
        BadItem: not a video of a known container.
    """

    def __init__(self, handle: IO[bytes], name: str, *, max_pixels: int, longest_side: int) -> None:
        self._handle = handle
        self._name = name
        self._max_pixels = max_pixels
        self._longest_side = longest_side
        self._frames: Iterator[av.VideoFrame] | None = None
        self._reached = -1
        self.decoded = 0
        """How many frames have left the decoder so far."""
        self._open()
        size = self._stream.codec_context
        self._check_pixels(size.height, size.width)
        self.fps = frame_rate(self._stream)
        self._list_packets()
        if not self.fps or self.fps > MOST_FPS:
            self.fps = average_rate(self._times or [], self._stream) or self.fps

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

    def _open(self) -> None:
        self._container, self._stream = open_video(self._handle, self._name)
        # The coded pixels may claim another size than the container; twice leaves room for a decoder's padding.
        self._stream.codec_context.options = {"max_pixels": str(2 * self._max_pixels)}

    def _list_packets(self) -> None:
        declared = shown_samples(self._container, self._stream) or self._stream.frames
        hidden_frames = self._stream.codec_context.name in ("vp8", "libvpx")
        entries: list[_Packet] = []
        num_packets = 0
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0 and packet.pts is None and packet.dts is None:
                    continue  # PyAV's own mark of the end
                if packet.is_corrupt:
                    break
                num_packets += not packet.is_discard
                # VP8 has packets that only prepare others; the bit says whether its picture is shown.
                hidden = hidden_frames and packet.size > 0 and not memoryview(packet)[0] & 0x10
                if packet.size and not hidden:
                    entries.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, not packet.is_discard))
        except FFmpegError:
            pass  # what can still be read counts; a frame beyond it says that the video ends early
        if "matroska" in self._container.format.name and missing_bytes(self._handle):
            # Its header says how long it was meant to be, in seconds; one frame is missing at least.
            seconds = (self._container.duration or 0) / av.time_base
            declared = max(declared, num_packets + 1, round(seconds * self.fps))
        self.missing = max(0, declared - num_packets)
        """Frames that the header declares and the file does not hold."""
        self._index_entries(entries)
        if not self.num_frames:
            raise TruncatedMedia(f"{self._name}: the video ends before its first frame")

    def _index_entries(self, entries: list[_Packet]) -> None:
        self._keyframes: list[_Keyframe] = []
        self._order: dict[tuple[int | None, int | None], int] = {}
        times = [entry.pts for entry in entries if entry.pts is not None and entry.shown]
        num_shown = sum(entry.shown for entry in entries)
        # AVI stores the order of decoding alone. Where FFmpeg does not work the times of B-frames out, packets that are
        # decoded one after the other seem to be shown so as well, and the frames that come out have other times. Then
        # frames are counted as they come out, as where there are no times at all.
        guessed = "avi" in self._container.format.name and self._stream.codec_context.has_b_frames
        if (guessed and times == sorted(times)) or len(set(times)) != num_shown:
            self._times: list[int] | None = None
            self.num_frames = num_shown
            return
        first = next((i for i, entry in enumerate(entries) if entry.is_key), len(entries))
        # What comes before the first keyframe, in the file or on the screen, refers to frames that were cut off.
        entries = entries[first:]
        shown = [entry.pts for entry in entries if entry.shown and entry.pts is not None]
        self._times = sorted(pts for pts in shown if pts >= entries[0].pts)  # type: ignore[operator]
        self.num_frames = len(self._times)
        self._index = {pts: i for i, pts in enumerate(self._times)}
        for order, entry in enumerate(entries):
            # Where an edit list shows a part twice, two packets may bear the same times: no seek may begin at either.
            times_of = (entry.pts, entry.dts)
            self._order[times_of] = len(entries) if times_of in self._order else order
            if entry.is_key and entry.shown and entry.pts in self._index:
                self._keyframes.append(_Keyframe(self._index[entry.pts], order, entry.pts, entry.dts))
        self._keyframes.sort(key=lambda keyframe: keyframe.index)

    def _fetch(self, index: int) -> av.VideoFrame:
        total = self.num_frames + self.missing
        if index >= self.num_frames:
            raise TruncatedMedia(f"{self._name} ends early: frame {index} of {total} is not there")
        reason = "the decoder leaves it out"
        # Each way begins earlier than the one before, so whether a frame can be had never depends on what was read
        # before it.
        for begin in self._beginnings(index):
            try:
                begin()
                frame = self._decode_to(index)
            except FFmpegError as error:
                self._frames, reason = None, str(error)
                continue
            if frame is not None and not frame.is_corrupt:
                return frame
            reason = reason if frame is None else "its data is damaged"
        self._frames = None
        raise TruncatedMedia(f"{self._name} ends early: frame {index} of {total} cannot be decoded: {reason}")

    def _beginnings(self, index: int) -> Iterator[Callable[[], None]]:
        before = [keyframe for keyframe in self._keyframes if keyframe.index <= index]
        nearest = before[-1] if before else None
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

    def _seek(self, keyframe: _Keyframe) -> None:
        # The index of an AVI file goes by decoding time, the others' by presentation time.
        by_pts = "avi" not in self._container.format.name
        time = keyframe.pts if by_pts or keyframe.dts is None else keyframe.dts
        self._container.seek(time, stream=self._stream, backward=True)
        self._frames = self._decode(keyframe)

    def _decode(self, keyframe: _Keyframe | None) -> Iterator[av.VideoFrame]:
        sought = keyframe
        for packet in self._container.demux(self._stream):
            if sought is not None and packet.pts is not None:
                # A seek may land anywhere; behind the keyframe it would give wrong pixels, so nothing is decoded.
                order = self._order.get((packet.pts, packet.dts), len(self._order))
                if order > sought.order or not packet.is_keyframe:
                    return
                sought = None
            # An empty packet would tell the decoder that the video is over.
            if packet.is_corrupt or (packet.size == 0 and packet.pts is not None):
                continue
            yield from packet.decode()

    def _decode_to(self, index: int) -> av.VideoFrame | None:
        assert self._frames is not None
        for frame in self._frames:
            self.decoded += 1
            if self._times is None:
                position: int | None = self._reached + 1
            else:
                position = None if frame.pts is None else self._index.get(frame.pts)
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
        if self._times is not None:
            assert self._stream.time_base is not None, "presentation times are counted in it"
            time_s = float((self._times[index] - self._times[0]) * self._stream.time_base)
        else:
            time_s = index / self.fps if self.fps else 0.0
        return VideoFrame(
            index=index,
            time_s=time_s,
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
