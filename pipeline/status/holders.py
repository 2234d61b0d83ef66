"""Who holds an output, and whether that process lives: by the beat of its lock file, as the store dates it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from trackmill.pipeline.status.state import Holder, Sign
from trackmill.pipeline.storage.file_times import FileTime
from trackmill.pipeline.storage.output_lock import EXPIRES_S, NAME, holder
from trackmill.pipeline.storage.owner import Owner
from trackmill.pipeline.storage.processes import is_alive, machine


def holders_of(output: str, files: Iterable[FileTime], now: float) -> tuple[list[Holder], list[Sign]]:
    """Who holds the output, and the beat of its lock as a sign of life.

    Args:
        output: root URL of what is locked.
        files: right in it, hidden ones too.
        now: see `file_times.StoreTime`.

    Raises:
        OSError: storage failed.
    """
    beat = next((file.modified for file in files if file.name == NAME), None)
    owner = holder(output) if beat is not None else None
    if beat is None or owner is None:
        return [], []
    age = age_of(beat, now)
    alive = _is_alive(owner, age)
    sign = [Sign(what="the lock's beat", age_s=age, progress=False)] if math.isfinite(age) else []
    return [Holder(who=_named(owner), since=owner.since, beat_s=age, alive=alive)], sign


def age_of(modified: float, now: float) -> float:
    """Seconds since a time; none is negative: a clock may be a little behind."""
    return max(0.0, now - modified) if math.isfinite(modified) else math.nan


def _is_alive(owner: Owner, beat_s: float) -> bool:
    if owner.machine == machine():
        return is_alive(owner.pid, owner.started)
    return beat_s <= EXPIRES_S


def _named(owner: Owner) -> str:
    return f"job {owner.job}, process {owner.pid} on {owner.host}"
