"""What the seconds of a worker are spent on: its model, or waiting for something else."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Waiting = Literal["reading", "writing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkTimes:
    """Seconds of one worker. They add up to its wall-clock time since it was ready, or since it last told them.

    Args:
        model: at least one item was with the model, or with the producer of a sidecar.
        reading: else, the next item was not read yet.
        writing: else, encoding or writing was behind, or anything else between two items.
        publishing: no unit was being worked on, because all that were given were being published.
        waiting: there was no unit at all.
    """

    model: float = 0.0
    reading: float = 0.0
    writing: float = 0.0
    publishing: float = 0.0
    waiting: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.model + self.reading + self.writing + self.publishing + self.waiting

    def __add__(self, other: WorkTimes) -> WorkTimes:
        names = [field.name for field in dataclasses.fields(self)]
        return WorkTimes(**{name: getattr(self, name) + getattr(other, name) for name in names})


class Ledger:
    """Books every second of a worker under one name; its threads share it.

    Args:
        clock: seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._seconds = dict.fromkeys(("model", "reading", "writing", "publishing", "waiting"), 0.0)
        self._models = self._publishing = 0
        self._waiting: Waiting | None = None

    @contextmanager
    def model(self) -> Iterator[None]:
        """Within, the model works; several threads may say so at once, and it counts once."""
        with self._lock:
            self._book()
            self._models += 1
        try:
            yield
        finally:
            with self._lock:
                self._book()
                self._models -= 1

    def wait(self, what: Waiting | None) -> None:
        """While the model does not work, time is spent on this from now on; None: nobody works on a unit."""
        with self._lock:
            self._book()
            self._waiting = what

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Within, a unit is being published."""
        with self._lock:
            self._book()
            self._publishing += 1
        try:
            yield
        finally:
            with self._lock:
                self._book()
                self._publishing -= 1

    def take(self) -> WorkTimes:
        """What was booked since this was last asked for."""
        with self._lock:
            self._book()
            taken = WorkTimes(**self._seconds)
            self._seconds = dict.fromkeys(self._seconds, 0.0)
            return taken

    def _book(self) -> None:
        now = self._clock()
        name = "model" if self._models else self._waiting or ("publishing" if self._publishing else "waiting")
        self._seconds[name] += now - self._since
        self._since = now
