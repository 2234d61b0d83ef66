"""What a worker is doing at this moment: written by its threads, read by others, always as a whole."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from trackmill.pipeline.workers.task import Status


class LiveStatus:
    """The status of one worker behind a lock: no reader sees the stage of one item beside the name of another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = Status()

    def read(self) -> Status:
        """A copy, which nobody changes any more."""
        with self._lock:
            return replace(self._status)

    def begin(self, unit: int) -> None:
        """A unit starts, and all counts with it."""
        with self._lock:
            self._status = Status(unit=unit)

    def enter(self, stage: str, source_id: str = "") -> None:
        """The worker goes over to a stage, of the item `source_id` or of the unit as a whole."""
        with self._lock:
            self._status.stage, self._status.source_id, self._status.since = stage, source_id, time.time()

    def item_done(self, frames: int, quarantined: bool) -> None:
        """An item of the unit is finished, with its frames; it counts once, whatever became of it."""
        with self._lock:
            self._status.items_done += 1
            self._status.frames_done += frames
            self._status.quarantined += quarantined
