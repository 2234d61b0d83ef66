"""`FROM:TO`, some frames of a sequence: by numbers that count from 1, or by shares of its length."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from trackmill.pipeline.formats.errors import BadTracks

if TYPE_CHECKING:
    from trackmill.pipeline.evaluation.readers.mot_sequence_file import SequenceFile

_RANGE = re.compile(r"(\d*|0?\.\d+):(\d*|0?\.\d+)")
_END = int(np.iinfo(np.int64).max)


def is_frame_range(text: str) -> bool:
    """Whether a text has the form of a range, such as `301:600`, `301:`, `:0.5` or `:`."""
    return _RANGE.fullmatch(text) is not None


def frame_range(text: str, sequence: SequenceFile) -> tuple[int, int] | None:
    """The first and the last frame that count; None: all.

    Args:
        text: `301:600`, both ends included; `301:` is all from 301 on. A number below 1 is a share of the sequence, so
            `:0.5` and `0.5:` are its two halves: of N frames, 1 to N / 2 rounded down, and those behind.
        sequence: whose ground truth says how long it is, where shares are asked for: `seqLength` of its `seqinfo.ini`,
            or else the last frame that has a row.

    Raises:
        BadTracks: there is no such range.
        OSError: the ground truth cannot be read.
    """
    if text in ("", ":"):
        return None
    first, _, last = text.partition(":")
    length = _length(sequence) if "." in text else 0
    begin = math.floor(float(first) * length) + 1 if "." in first else int(first or 1)
    end = math.floor(float(last) * length) if "." in last else int(last or _END)
    if not 1 <= begin <= end:
        raise BadTracks(f"--frames {text}: give FROM:TO with 1 <= FROM <= TO, such as 301:600, or :0.5 for a half")
    return begin, end


def _length(sequence: SequenceFile) -> int:
    length = sequence.length()
    if length is not None:
        return length
    rows = sequence.read()
    return int(rows.frames.max()) if len(rows) else 0
