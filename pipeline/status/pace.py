"""How fast an output grows, from the times at which its finished files were written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

RECENT_S = 600.0
"""What counts as the last minutes."""
_FEWEST = 5
"""Files that a recent rate is taken over at least, however long ago they were written."""
_PAUSE_S = 3600.0
_PAUSE_GAPS = 20
"""A gap is a pause, and counts for no rate, where it is longer than an hour and than so many usual gaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Finished things a second; None where too few are there to tell.

    Args:
        recent: over the last `RECENT_S` before the newest, or the last five of them.
        recent_s: how long that was.
        overall: over all of them, pauses left out.
        pauses: number of long gaps, in which nobody worked.
        paused_s: how long they were together.
    """

    recent: float | None = None
    recent_s: float = 0.0
    overall: float | None = None
    pauses: int = 0
    paused_s: float = 0.0

    @property
    def best(self) -> float | None:
        """What a forecast should be made from."""
        return self.recent if self.recent is not None else self.overall

    def left_s(self, left: float) -> float | None:
        """Seconds for what is left; None where the rate is not known."""
        return left / self.best if self.best else None


def pace_of(times: Sequence[float]) -> Pace:
    """The pace of files that were written at `times`, in seconds, in any order; those that are nan do not count."""
    known = sorted(each for each in times if math.isfinite(each))
    if len(known) < 2:
        return Pace()
    gaps = [after - before for before, after in pairwise(known)]
    longest = max(_PAUSE_S, _PAUSE_GAPS * statistics.median(gaps))
    pauses = [gap for gap in gaps if gap > longest]
    span = sum(gaps) - sum(pauses)
    overall = (len(gaps) - len(pauses)) / span if span > 0 else None
    recent = [each for each in known if each >= known[-1] - RECENT_S]
    if len(recent) < _FEWEST:
        recent = known[-_FEWEST:]
    lasted = recent[-1] - recent[0]
    has_pause = any(after - before > longest for before, after in pairwise(recent))
    return Pace(
        recent=(len(recent) - 1) / lasted if lasted > 0 and not has_pause else None,
        recent_s=lasted,
        overall=overall,
        pauses=len(pauses),
        paused_s=sum(pauses),
    )
