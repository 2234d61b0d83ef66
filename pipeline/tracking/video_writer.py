"""An MP4 of the frames with their tracks drawn on them, published under its name only when it is complete.

While it is written it consists of fragments, one a frame, and can be played at any time, also after a kill: up to
some ten frames before the last, which the encoder holds back. At the end the packets are copied into a plain MP4 whose
index comes first.
"""

from __future__ import annotations

import os
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trackmill.pipeline.tracking.drawing import DrawSettings, Trails, draw_tracks
from trackmill.pipeline.tracking.writers import TrackWriter
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

_TICKS = 90_000
"""Time stamps a second: all usual frame rates are whole numbers of them."""

_SAME_TIME_S = 0.0015
"""Containers that count in milliseconds are off by one at most: such frames stand exactly at the frame rate."""

_MOST_FPS_DENOMINATOR = 1001
"""Enough for 30000/1001 and its relatives."""


class VideoWriter(TrackWriter):
    """H.264 in MP4, at the size of the first frame; frames of another size are scaled into it, over black.

    A frame is shown when it is shown in the source, so a variable frame rate is kept, and a frame that could not be
    read leaves the one before it standing a little longer.

    Args:
        url: where it goes.
        fps: frames per second.
        settings: how it looks.
        begin_s: time of the source that the video begins with.
    """

    streamed = True
    draws = True

    def __init__(self, url: str, fps: float, settings: DrawSettings | None = None, begin_s: float = 0.0) -> None:
        super().__init__(url)
        self._begin_s = begin_s
        self._settings = settings or DrawSettings()
        self._rate = Fraction(fps).limit_denominator(_MOST_FPS_DENOMINATOR) or Fraction(1)
        self._trails = Trails(self._settings.trail_frames)
        self._container: av.container.OutputContainer | None = None
        self._last = -1
        self._complete = False

    def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        """See `TrackWriter.write`."""
        self._trails.add(frame.index, tracked)
        drawn = draw_tracks(frame.image, tracked, self._trails, self._settings.labels)
        container = self._container or self._open(*drawn.shape[:2])
        shown = av.VideoFrame.from_ndarray(self._fitted(drawn), format="rgb24")
        self._last = max(self._last + 1, self._ticks(frame.time_s - self._begin_s))
        shown.pts, shown.time_base = self._last, Fraction(1, _TICKS)
        container.mux(self._stream.encode(shown))

    def finish(self) -> str:
        """See `TrackWriter.finish`; without a frame there is no video, and the name stays free."""
        return super().finish() if self._container is not None else self._nothing()

    def keep(self) -> str:
        """See `TrackWriter.keep`."""
        return super().keep() if self._container is not None else self._nothing()

    def _nothing(self) -> str:
        self.abandon()
        return ""

    def _ticks(self, time_s: float) -> int:
        nearest = round(time_s * self._rate) / self._rate
        return round((nearest if abs(nearest - time_s) <= _SAME_TIME_S else time_s) * _TICKS)

    def _write_end(self) -> None:
        assert self._container is not None
        if not self._complete:  # it may have been stopped in the copying below
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._complete = True
        plain = self._scratch.with_name(f"{self._scratch.name}-plain")
        try:
            _copy(str(self._scratch), str(plain))
            os.replace(plain, self._scratch)
        finally:
            plain.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()

    def _open(self, height: int, width: int) -> av.container.OutputContainer:
        options = {"movflags": "frag_every_frame+delay_moov+default_base_moof", "flush_packets": "1"}
        self._container = av.open(str(self._scratch), "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        # H.264 with halved colour needs even sides.
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream.options = {"crf": str(self._settings.quality), "preset": "veryfast"}
        return self._container

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = self._stream.height, self._stream.width
        if image.shape[:2] == (height, width):
            return image
        factor = min(height / image.shape[0], width / image.shape[1])
        if image.shape[0] in (height, height - 1) and image.shape[1] in (width, width - 1):
            factor = 1.0
        scaled = Image.fromarray(image)
        if factor != 1:
            sides = (round(image.shape[1] * factor), round(image.shape[0] * factor))
            scaled = scaled.resize((max(1, sides[0]), max(1, sides[1])), Image.Resampling.BICUBIC)
        page = Image.new("RGB", (width, height))
        page.paste(scaled, ((width - scaled.width) // 2, (height - scaled.height) // 2))
        return np.asarray(page)


def _copy(source: str, target: str) -> None:
    """The same packets in a plain MP4 whose index comes first, as players on the web want it."""
    options = {"movflags": "+faststart"}
    with av.open(source) as given, av.open(target, "w", format="mp4", options=options) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
