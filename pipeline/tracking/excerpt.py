"""A part of a video: `--start` and `--end`, as frame numbers or as seconds.

Frames that are left out keep their place: the others have the numbers and times that they have in the whole video.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
from dataclasses import dataclass

from trackmill.pipeline.tracking.frame_reader import FrameReader
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import shortened

log = logging.getLogger("trackmill")

_LATEST = 10**9
"""Frame, and second: no video has as many."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in a video.

    Args:
        text: as somebody wrote it.
        number: of a frame, as result files have it: from 1.
        time_s: seconds from the first frame; None where a frame is meant.
    """

    text: str
    number: int = 0
    time_s: float | None = None


def moment(text: str) -> Moment:
    """The type of an option: `250`, a frame, or `12.5s`.

    Raises:
        ArgumentTypeError: it is neither.
    """
    if re.fullmatch(r"\d{1,10}", text) and 1 <= int(text) <= _LATEST:
        return Moment(text, number=int(text))
    if re.fullmatch(r"(\d{1,10}(\.\d*)?|\.\d+)s", text) and float(text[:-1]) <= _LATEST:
        return Moment(text, time_s=float(text[:-1]))
    fault = f"{shortened(text, 40)!r} is neither a frame number from 1 nor seconds"
    raise argparse.ArgumentTypeError(f"{fault}: write 250, or 12.5s")


def check_order(start: Moment | None, end: Moment | None) -> None:
    """Refuse an end before the start, where that can be told without a video.

    Raises:
        InputError: nothing lies between the two.
    """
    if start is None or end is None:
        return
    frames = start.time_s is None and end.time_s is None and start.number > end.number
    seconds = start.time_s is not None and end.time_s is not None and start.time_s >= end.time_s
    if frames or seconds:
        raise InputError(f"--end {end.text} lies before --start {start.text}, so nothing is between them")


def keep_excerpt(reader: FrameReader, start: Moment | None, end: Moment | None) -> None:
    """Let a reader give a part of its frames; before it is iterated over.

    Args:
        reader: of the whole video.
        start: the first frame; a time means the first frame that is shown then or later. None: from the beginning.
        end: the last frame; a time means the last frame that is shown before it. None: to the end.

    Raises:
        InputError: no frame of the video lies between them; says which frames it has.
    """
    if start is None and end is None:
        return
    first = 1 if start is None else _number(reader, start)
    last = None if end is None else _number(reader, end) - (end.time_s is not None)
    lowest, highest = reader.first_number, reader.last_number
    if first > highest or (last is not None and (last < first or last < lowest)):
        between = " ".join(f"--{name} {each.text}" for name, each in (("start", start), ("end", end)) if each)
        length = f"{math.ceil((highest - lowest + 1) / reader.fps * 100) / 100:g} s"
        raise InputError(
            f"{between}: holds no frame of {reader.name}, which has frames {lowest} to {highest} ({length})"
        )
    if end is not None and end.time_s is None and end.number > highest:
        log.warning("--end %s: the last frame of %s is %d", end.text, reader.name, highest)
    reader.keep_numbers(first, last)


def _number(reader: FrameReader, place: Moment) -> int:
    return place.number if place.time_s is None else reader.number_at(place.time_s)
