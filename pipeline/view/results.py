"""Tracking results as the page asks for them: frames of a video, boxes of trackers and of the ground truth, moments."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trackmill.pipeline.formats.mot_text import MAX_TEXT_BYTES, MotRows, parse_mot_text
from trackmill.pipeline.inspect.thumbnails import jpeg_bytes, shown
from trackmill.pipeline.media.drawing.palette import css, identity_colour
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.urls import canonical, join
from trackmill.pipeline.tracking.frame_reader import FrameReader, ReadLimits
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.pipeline.tracking.picture_frames import PictureFrames
from trackmill.pipeline.view.cache import BoundedCache
from trackmill.pipeline.view.moments import read_moments
from trackmill.schemas.errors import InputError

log = logging.getLogger("trackmill")

GROUND_TRUTH = "ground truth"
MAX_SIDES = 4
MAX_FRAMES = 100
"""Whose boxes one request may ask for."""
_MAX_BOXES = 1000
_MAX_WIDTH = 1280
_FRAME_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame as JPEG, perhaps made smaller, and the size in pixels that its boxes are in."""

    jpeg: bytes
    width: int
    height: int


class Tracks:
    """The rows of one MOTChallenge file, by frame.

    Args:
        rows: as they were read.
        scored: leave out rows whose flag is 0, as ground truth marks what is not scored.
    """

    def __init__(self, rows: MotRows, scored: bool = False) -> None:
        kept = np.flatnonzero(rows.confidence != 0) if scored else np.arange(len(rows))
        order = kept[np.argsort(rows.frames[kept], kind="stable")]
        self.url = redact(rows.url)
        self.numbered: list[int] = np.unique(rows.frames).tolist()
        """The frames that the file has rows of, also of what is left out, ascending."""
        self.frames: NDArray[np.int64] = rows.frames[order]
        self.ids, self.boxes, self.confidence = rows.ids[order], rows.boxes[order], rows.confidence[order]

    def of_frame(self, number: int) -> list[dict[str, Any]]:
        """The boxes of a frame, counted from 1, for the page."""
        first, last = np.searchsorted(self.frames, [number, number + 1]).tolist()
        return [
            {
                "id": str(identity),
                "box": [round(value, 1) for value in box],
                "colour": css(identity_colour(identity)),
                "title": f"{identity}: confidence {confidence:.2f}",
            }
            for identity, box, confidence in zip(
                self.ids[first:last].tolist()[:_MAX_BOXES],
                self.boxes[first:last].tolist(),
                self.confidence[first:last].tolist(),
            )
        ]


class ResultsView:
    """A video with the tracks of up to `MAX_SIDES` trackers; from any thread.

    Args:
        url: a video, a folder of pictures or a MOTChallenge sequence; the ground truth of the last is found beside it.
        results: MOTChallenge text by the name of the tracker, URLs.
        evaluation: the JSON that `trackmill evaluate --output` wrote, for its worst moments; "" for none.

    Raises:
        InputError: nothing that can be shown, too many trackers, a file that is none of tracks, or one whose frame
            numbers go with no picture.
        OSError: storage failed.
    """

    def __init__(self, url: str, results: Mapping[str, str], evaluation: str = "") -> None:
        if not 1 <= len(results) <= MAX_SIDES or GROUND_TRUTH in results:
            raise InputError(f"--results: name 1 to {MAX_SIDES} trackers, and none of them {GROUND_TRUTH!r}")
        self._url = canonical(url)
        self.sides = {name: _tracks(file, scored=False) for name, file in results.items()}
        self._ground_truth = None
        gt = join(self._url, "gt", "gt.txt")
        if exists(gt):
            self._ground_truth = _tracks(gt, scored=True)
        self._reader: FrameReader = open_frames(self._url, ReadLimits())
        self._moments: list[dict[str, Any]] | None = None
        self._no_moments = ""
        try:
            truth = [] if self._ground_truth is None else [self._ground_truth]
            _count_alike(self._reader, [*truth, *self.sides.values()])
            if evaluation:
                self._moments, self._no_moments = read_moments(evaluation, self._reader.name)
        except BaseException:
            self._reader.close()
            raise
        self._numbers = self._reader.numbers
        self._lock = threading.Lock()
        self._frames: BoundedCache[int, Picture] = BoundedCache(_FRAME_BYTES, lambda picture: len(picture.jpeg))

    def about(self) -> dict[str, Any]:
        """What the head of the page shows; `numbers` of the frames only where some between the ends are missing."""
        first, last = self._numbers[0], self._numbers[-1]
        return {
            "url": shown(redact(self._url)),
            "name": shown(self._reader.name),
            "fps": self._reader.fps,
            "first": first,
            "last": last,
            "count": len(self._numbers),
            "numbers": None if last - first + 1 == len(self._numbers) else list(self._numbers),
            "sides": [
                {"name": shown(name), "boxes": len(tracks.ids), "tracks": len(np.unique(tracks.ids))}
                for name, tracks in self.sides.items()
            ],
            "ground_truth": None if self._ground_truth is None else len(np.unique(self._ground_truth.ids)),
            "moments": self._moments,
            "no_moments": self._no_moments,
        }

    def tracks(self, begin: int, count: int) -> dict[str, Any]:
        """The boxes of all sides and the ground truth on frame `begin` and those behind it, at most `MAX_FRAMES`."""
        place = bisect_left(self._numbers, begin)
        gt = self._ground_truth
        return {
            "frames": {
                str(number): {
                    "sides": [tracks.of_frame(number) for tracks in self.sides.values()],
                    "gt": [] if gt is None else gt.of_frame(number),
                }
                for number in self._numbers[place : place + max(0, min(count, MAX_FRAMES))]
            }
        }

    def picture(self, number: int) -> Picture:
        """A frame, at most `_MAX_WIDTH` wide.

        Raises:
            InputError, BadItem: there is no such frame, or it cannot be decoded.
            OSError: storage failed.
        """
        return self._frames.get(number, lambda: self._decoded(number))

    def close(self) -> None:
        """Free the decoder."""
        self._reader.close()

    def _decoded(self, number: int) -> Picture:
        with self._lock:  # one decoder
            image = Image.fromarray(self._reader.frame(number).image)
        width, height = image.size
        if width > _MAX_WIDTH:
            image = image.resize((_MAX_WIDTH, max(1, round(height * _MAX_WIDTH / width))))
        return Picture(jpeg_bytes(image), width, height)


def _tracks(url: str, scored: bool) -> Tracks:
    return Tracks(parse_mot_text(read_bytes(url, max_bytes=MAX_TEXT_BYTES), canonical(url)), scored)


def _count_alike(reader: FrameReader, files: list[Tracks]) -> None:
    """Number pictures as the first file with rows does, and move the rows of files that count otherwise.

    Trackers may call frames by the names of pictures where the ground truth counts from 1, or the other way round.

    Raises:
        InputError: the frames of a file go with no picture.
    """
    filled = [tracks for tracks in files if tracks.numbered]
    if not isinstance(reader, PictureFrames) or not filled:
        return
    shift = reader.shift_to(filled[0].numbered, filled[0].url)
    there = [number + shift for number in reader.numbers]
    for tracks in filled[1:]:
        # Rows before or behind the pictures are no sign of it, as of a sequence that was cut.
        if np.isin(tracks.numbered, there).mean() >= 0.5:
            continue
        by = shift - reader.shift_to(tracks.numbered, tracks.url)
        if by:
            begin = tracks.numbered[0]
            log.warning("%s: counts frames otherwise: its frame %d is frame %d here", tracks.url, begin, begin + by)
            tracks.frames = tracks.frames + by
    reader.fit_rows(filled[0].numbered, filled[0].url)
