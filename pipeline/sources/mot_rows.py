"""Rows of a MOTChallenge `gt.txt`, by frame: which are objects, and which only regions to ignore.

Two kinds of rows share the first seven columns (frame, id, x, y, width, height, flag). MOT16, 17 and 20 have exactly
two more, class and visibility; MOT15 has three, coordinates in the world. A row with flag 0, or of a class other than
1 (pedestrian), is neither an object nor background: distractors, reflections, people in vehicles, occluders.

The specification counts x and y from 1; TrackEval uses them as they are, and so do we, so that boxes and published
numbers agree.

Boxes of MOT16, 17 and 20 go round the whole person, also where the picture ends; those of MOT15 often do, and those of
DanceTrack and SportsMOT hardly ever.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field

import numpy as np

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import check_whole
from trackmill.pipeline.sources.amodal import check_reach
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.schemas.boxes import Boxes, box_areas, clip_boxes, from_xywh
from trackmill.schemas.media import Annotations

MAX_TRUTH_BYTES = 100 << 20
"""Largest `gt.txt` that is read: that of MOT20-05 has 30 MB; rows take up to 20 times their size in memory."""

_PEDESTRIAN = 1
_NUM_SHARED = 7
_NUM_WITH_CLASS = 9


@dataclass(slots=True)
class FrameRows:
    """Rows of one frame: `xywh` and id of each object, `xywh` of each ignored region."""

    boxes: list[list[float]] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    ignore: list[list[float]] = field(default_factory=list)

    def clipped(self, height: int, width: int) -> Annotations:
        """As annotations of an image of `height` x `width`; a box that lies outside it is left out."""
        return self._annotations(clip_boxes(_xyxy(self.boxes), height, width), height, width)

    def amodal(self, height: int, width: int, where: str) -> Annotations:
        """The same with the boxes of objects as they stand in the file, also where they leave the image.

        Raises:
            BadItem: see `check_reach`; names `where`.
        """
        boxes = _xyxy(self.boxes)
        check_reach(boxes, where)
        return self._annotations(boxes, height, width)

    def _annotations(self, boxes: Boxes, height: int, width: int) -> Annotations:
        kept = np.flatnonzero(box_areas(clip_boxes(boxes, height, width)) > 0).tolist()
        ignore = clip_boxes(_xyxy(self.ignore), height, width)
        return Annotations(
            boxes=boxes[kept],
            ids=[self.ids[i] for i in kept],
            scores=[1.0] * len(kept),
            masks=[None] * len(kept),
            ignore=ignore[box_areas(ignore) > 0],
        )


GroundTruth = dict[int, FrameRows]
"""Rows by the number of their frame, as written in the file."""


def read_ground_truth(uri: str) -> GroundTruth:
    """Parse a `gt.txt`.

    Raises:
        BadItem: a line with too few columns or something that is no number, or an id twice in a frame; names file
            and line.
        OSError: could not be fetched.
    """
    try:
        text = read_bytes(uri, max_bytes=MAX_TRUTH_BYTES).decode("utf-8-sig")
    except FileTooLarge as error:
        raise BadItem(f"{error} for ground truth") from None
    except UnicodeDecodeError:
        raise BadItem(f"{uri}: not a text file") from None
    truth: GroundTruth = {}
    seen: set[tuple[int, int]] = set()
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        where = f"{uri}: line {number}"
        values = _numbers(line, where)
        frame, identity = _whole(values[0], "frame", where), _whole(values[1], "id", where)
        rows = truth.setdefault(frame, FrameRows())
        if values[4] < 0 or values[5] < 0:
            raise BadItem(f"{where}: the box has a negative width or height")
        if not _is_object(values):
            rows.ignore.append(values[2:6])
            continue
        if (frame, identity) in seen:
            raise BadItem(f"{where}: id {identity} stands twice in frame {frame}")
        seen.add((frame, identity))
        rows.boxes.append(values[2:6])
        rows.ids.append(identity)
    return truth


def _is_object(values: list[float]) -> bool:
    if values[6] == 0:
        return False
    # Some nine-column files write -1 for a class that they do not have.
    has_class = len(values) == _NUM_WITH_CLASS and values[7] >= 1 and values[7] == int(values[7])
    return not has_class or values[7] == _PEDESTRIAN


def _numbers(line: str, where: str) -> list[float]:
    columns = line.split(",")
    if len(columns) < _NUM_SHARED:
        raise BadItem(f"{where}: {len(columns)} columns, at least {_NUM_SHARED} are needed: {line[:80]!r}")
    try:
        values = [float(column) for column in columns]
    except ValueError:
        raise BadItem(f"{where}: not all columns are numbers: {line[:80]!r}") from None
    if not all(math.isfinite(value) for value in values):
        raise BadItem(f"{where}: a column is not finite: {line[:80]!r}")
    return values


def _whole(value: float, name: str, where: str) -> int:
    if value != int(value):
        raise BadItem(f"{where}: {name} should be a whole number, found {value}")
    check_whole(value, f"{where}: {name}")
    return int(value)


def _xyxy(boxes_xywh: list[list[float]]) -> Boxes:
    with np.errstate(over="ignore"):  # too large for float32: infinite, which is cut or refused
        return from_xywh(np.array(boxes_xywh, np.float64).reshape(-1, 4))
