"""Tracking results as the page asks for them: frames of a video, boxes of trackers and of the ground truth, moments."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from trackmill.pipeline.formats.mot_text import MAX_TEXT_BYTES, MotRows, parse_mot_text
from trackmill.pipeline.inspect.thumbnails import jpeg_bytes, shown
from trackmill.pipeline.media.drawing.palette import css, identity_colour
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import MAX_DOCUMENT_BYTES
from trackmill.pipeline.storage.files import canonical, exists, join, read_bytes
from trackmill.pipeline.tracking.frames import FrameReader, ReadLimits, open_frames
from trackmill.pipeline.view.cache import BoundedCache
from trackmill.schemas.errors import InputError

GROUND_TRUTH = "ground truth"
MAX_SIDES = 4
MAX_FRAMES = 100
"""Whose boxes one request may ask for."""
_MAX_BOXES = 1000
_MAX_WIDTH = 1280
_FRAME_BYTES = 128 << 20
_MOST_MOMENTS = 50


class Tracks:
    """The rows of one MOTChallenge file, by frame.

    Args:
        rows: as they were read.
        scored: leave out rows whose flag is 0, as ground truth marks what is not scored.
    """

    def __init__(self, rows: MotRows, scored: bool = False) -> None:
        kept = np.flatnonzero(rows.confidence != 0) if scored else np.arange(len(rows))
        order = kept[np.argsort(rows.frames[kept], kind="stable")]
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
        InputError: nothing that can be shown, too many trackers, or a file that is none of tracks.
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
        first = self._reader.frame(self._reader.first_number).image
        self._size = first.shape[1], first.shape[0]
        self._lock = threading.Lock()
        self._frames: BoundedCache[int, bytes] = BoundedCache(_FRAME_BYTES, len)
        self._moments = _moments(evaluation, self._reader.name) if evaluation else []

    def about(self) -> dict[str, Any]:
        """What the head of the page shows."""
        return {
            "url": shown(redact(self._url)),
            "name": shown(self._reader.name),
            "fps": self._reader.fps,
            "width": self._size[0],
            "height": self._size[1],
            "first": self._reader.first_number,
            "last": self._reader.last_number,
            "sides": [
                {"name": shown(name), "boxes": len(tracks.ids), "tracks": len(np.unique(tracks.ids))}
                for name, tracks in self.sides.items()
            ],
            "ground_truth": None if self._ground_truth is None else len(np.unique(self._ground_truth.ids)),
            "moments": self._moments,
        }

    def tracks(self, begin: int, count: int) -> dict[str, Any]:
        """The boxes of frames `begin` to `begin + count`, at most `MAX_FRAMES`, of all sides and the ground truth."""
        numbers = range(begin, begin + min(count, MAX_FRAMES))
        gt = self._ground_truth
        return {
            "frames": {
                str(number): {
                    "sides": [tracks.of_frame(number) for tracks in self.sides.values()],
                    "gt": [] if gt is None else gt.of_frame(number),
                }
                for number in numbers
            }
        }

    def picture(self, number: int) -> bytes:
        """A frame as JPEG, at most `_MAX_WIDTH` wide.

        Raises:
            InputError, BadItem: there is no such frame, or it cannot be decoded.
            OSError: storage failed.
        """
        return self._frames.get(number, lambda: self._decoded(number))

    def close(self) -> None:
        """Free the decoder."""
        self._reader.close()

    def _decoded(self, number: int) -> bytes:
        with self._lock:  # one decoder
            image = Image.fromarray(self._reader.frame(number).image)
        if image.width > _MAX_WIDTH:
            image = image.resize((_MAX_WIDTH, max(1, round(image.height * _MAX_WIDTH / image.width))))
        return jpeg_bytes(image)


def _tracks(url: str, scored: bool) -> Tracks:
    return Tracks(parse_mot_text(read_bytes(url, max_bytes=MAX_TEXT_BYTES), canonical(url)), scored)


def _moments(url: str, sequence: str) -> list[dict[str, Any]]:
    """The moments of one sequence out of an evaluation, the worst first."""
    try:
        values = orjson.loads(read_bytes(url, max_bytes=MAX_DOCUMENT_BYTES))
        return [
            {
                "frame": int(moment["frame"]) + 1,
                "said": shown(
                    ", ".join(f"object {s['gt']}: {s['from']} becomes {s['to']}" for s in moment["switches"])
                ),
            }
            for moment in values["moments"][:_MOST_MOMENTS]
            if moment["sequence"] == sequence
        ]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{redact(url)}: not what trackmill evaluate --output writes ({type(error).__name__})"
        ) from None
