"""The units that a worker has: one is worked on, another may be published meanwhile, and one waits for its turn.

Publishing takes seconds, in which the model would have nothing to do. So a worker is given its next unit shortly before
it is done with the one that it works on, and works on it while the other is published. That is all it ever holds: while
two units are not published, it gets no third, so its scratch files are those of two units at most.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trackmill.pipeline.workers.inflight import InFlightNote
from trackmill.pipeline.workers.status import LiveStatus
from trackmill.pipeline.workers.task import UnitDropped, UnitTask
from trackmill.pipeline.workers.work_times import Ledger

_AHEAD_S = 2.0
"""A worker asks for its next unit so many seconds before it will need it: far more than a driver takes to answer, and
little enough that, at the end of a run, nobody else would have begun the unit much earlier."""
_AHEAD_ITEMS = 2
_REMEMBERED = 64
_LOOK_S = 0.05


class Turns:
    """Who may work, in one worker; threads that each do one unit share it.

    Args:
        note, live, ledger: of the worker; they are told which unit is where.
        clock: seconds; for tests.
    """

    def __init__(
        self, note: InFlightNote, live: LiveStatus, ledger: Ledger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._note, self._live, self._ledger = note, live, ledger
        self._clock = clock
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._nearly: dict[int, threading.Event] = {}
        self._drop_at = math.inf
        self._item_s = 0.0
        self._begun = 0.0
        self._done = self._publishing = 0

    @contextmanager
    def hold(self, task: UnitTask) -> Iterator[None]:
        """Within, the unit is in hand: from before its turn until its receipt, or its failure."""
        with self._lock:
            event = self._nearly.get(task.unit)
            if event is None or event.is_set():
                self._nearly[task.unit] = threading.Event()
        try:
            yield
        finally:
            self._note.end(task.unit)
            self._live.end(task.unit)
            self._is_nearly_done(task.unit)
            with self._lock:
                while len(self._nearly) > _REMEMBERED:
                    del self._nearly[next(iter(self._nearly))]

    @contextmanager
    def work(self, task: UnitTask) -> Iterator[None]:
        """Within, it is this unit's turn: its items are worked on, and those of no other.

        Raises:
            UnitDropped: the worker is to end, and does not begin anything.
        """
        with self._turn:
            self._live.begin(task.unit)
            self._begun, self._done = self._clock(), 0
            self._ledger.wait("reading")
            try:
                self.advance(task, len(task.items) - len(task.poisoned))
                yield
            finally:
                self._ledger.wait(None)

    def advance(self, task: UnitTask, left: int) -> None:
        """Called before each item by who has the turn, with the items that are left, this one included.

        Raises:
            UnitDropped: the worker is to end, and there is no time for them.
        """
        now = self._clock()
        if self._done:
            self._item_s = (now - self._begun) / self._done
        self._done += 1
        if now + left * self._item_s >= self._drop_at:
            raise UnitDropped(f"{task.title}: dropped with {left} of its items left: its worker ends")
        # Of the first item nothing is known yet; the unit before it says how long they take.
        if left <= _AHEAD_ITEMS or (self._item_s and left * self._item_s <= _AHEAD_S):
            self._is_nearly_done(task.unit)

    @contextmanager
    def publish(self, task: UnitTask) -> Iterator[None]:
        """Within, all items of the unit are done, and it is published."""
        self._note.publish(task.unit)
        with self._lock:
            self._publishing += 1
        try:
            with self._ledger.publishing(), self._live.stage(f"publishing {task.title}"):
                yield
        finally:
            with self._lock:
                self._publishing -= 1

    def settle(self, seconds: float) -> None:
        """Wait, for so long at most, until nothing is being published: before this process ends because of an item."""
        until = self._clock() + seconds
        while self._publishing and self._clock() < until:
            time.sleep(_LOOK_S)

    def wait_until_nearly_done(self, unit: int) -> None:
        """Return when the worker should be given another unit beside this one, or is done with it."""
        with self._lock:
            event = self._nearly.setdefault(unit, threading.Event())
        event.wait()

    def drop_after(self, seconds: float) -> None:
        """From now on no item is begun that would, with the rest of its unit, not be done after so many seconds."""
        self._drop_at = min(self._drop_at, self._clock() + seconds)

    def _is_nearly_done(self, unit: int) -> None:
        with self._lock:
            event = self._nearly.get(unit)
        if event is not None:
            event.set()
