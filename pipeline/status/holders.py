"""Who holds an output, and whether that process lives: by the beat of its lock file, as the store dates it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from trackmill.pipeline.status.state import Holder, Sign
from trackmill.pipeline.storage.claim_files import FOLDER, at_work
from trackmill.pipeline.storage.file_times import FileTime, list_times
from trackmill.pipeline.storage.output_lock import EXPIRES_S, NAME, holder
from trackmill.pipeline.storage.owner import Owner
from trackmill.pipeline.storage.urls import join


def holders_of(output: str, files: Iterable[FileTime], now: float) -> tuple[list[Holder], list[Sign]]:
    """Who holds the output or works on units of it, and their beats as signs of life.

    Args:
        output: root URL of what is locked.
        files: right in it, hidden ones too.
        now: see `file_times.StoreTime`.

    Raises:
        OSError: storage failed.
    """
    beats: list[tuple[Owner, float]] = []
    lock = next((file.modified for file in files if file.name == NAME), None)
    owner = holder(output) if lock is not None else None
    if lock is not None and owner is not None:
        beats.append((owner, age_of(lock, now)))
    times = {file.name: file.modified for file in list_times(join(output, FOLDER))}
    for worker in at_work(output) if times else []:
        beats.append((worker, age_of(times.get(f"by-{worker.token}.json", math.nan), now)))
    holders = [
        Holder(who=_named(owner), since=owner.since, beat_s=age, alive=_is_alive(owner, age)) for owner, age in beats
    ]
    ages = [age for _, age in beats if math.isfinite(age)]
    return holders, [Sign(what="a process's beat", age_s=min(ages), progress=False)] if ages else []


def age_of(modified: float, now: float) -> float:
    """Seconds since a time; none is negative: a clock may be a little behind."""
    return max(0.0, now - modified) if math.isfinite(modified) else math.nan


def _is_alive(owner: Owner, beat_s: float) -> bool:
    here = owner.alive_here
    return beat_s <= EXPIRES_S if here is None else here


def _named(owner: Owner) -> str:
    return f"job {owner.job}, process {owner.pid} on {owner.host}"
