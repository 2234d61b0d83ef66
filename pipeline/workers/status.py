"""What a worker is doing at this moment: written by its threads, read by others, always as a whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from trackmill.pipeline.workers.task import Counts, Status


class LiveStatus:
    """The status of one worker behind a lock: no reader sees the stage of one item beside the name of another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unit = -1
        self._counts: dict[int, Counts] = {}
        self._ended: set[int] = set()
        self._stages: dict[int, tuple[str, str, float]] = {}
        self._entered = 0
        self._idle_since = time.time()

    def read(self) -> Status:
        """What there is now; nobody changes it any more. Of several stages at once it is the longest-lasting one."""
        with self._lock:
            stage, source_id, since = next(iter(self._stages.values()), ("idle", "", self._idle_since))
            own = self._counts.get(self._unit, Counts())
            others = {u: counts for u, counts in self._counts.items() if u != self._unit and u not in self._ended}
            return Status(self._unit, own.items, own.frames, own.quarantined, stage, source_id, since, others)

    def begin(self, unit: int) -> None:
        """A unit starts, and its counts with it; those of units that have ended are forgotten."""
        with self._lock:
            self._counts = {u: counts for u, counts in self._counts.items() if u not in self._ended and u != unit}
            self._ended.clear()
            self._unit = unit
            self._counts[unit] = Counts()

    def end(self, unit: int) -> None:
        """A unit is published, or given up."""
        with self._lock:
            self._ended.add(unit)

    @contextmanager
    def stage(self, stage: str, source_id: str = "") -> Iterator[None]:
        """Within, a thread of the worker is at a stage, of the item `source_id` or of the unit as a whole."""
        with self._lock:
            self._entered += 1
            number = self._entered
            self._stages[number] = stage, source_id, time.time()
        try:
            yield
        finally:
            with self._lock:
                del self._stages[number]
                self._idle_since = time.time()

    def item_done(self, unit: int, frames: int, quarantined: bool) -> None:
        """An item of a unit is finished, with its frames; it counts once, whatever became of it."""
        with self._lock:
            old = self._counts.get(unit, Counts())
            self._counts[unit] = Counts(old.items + 1, old.frames + frames, old.quarantined + quarantined)
