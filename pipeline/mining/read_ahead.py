"""Reading the next items while one is mined, and across the border of two units."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from trackmill.pipeline.mining.kept import KeptUnit
from trackmill.pipeline.mining.reading import ItemReader, Reading
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.workers.inflight import InFlightNote
from trackmill.pipeline.workers.status import LiveStatus
from trackmill.pipeline.workers.task import UnitTask
from trackmill.schemas.media import WorkItem

READ_AHEAD = 2
"""Items that are read, or being read, before they are needed: one that takes longer than others delays nobody."""


@dataclass(slots=True)
class Arrival:
    """An item after reading: either media or why there is none; or its sample, if an earlier try has kept it.

    Args:
        position: in the unit.
        item: what was read.
        reading: what came of it.
        seconds: that it took.
        kept: its sample, and the members of it.
    """

    position: int
    item: WorkItem
    reading: Reading
    seconds: float
    kept: tuple[Sample, list[tuple[str, bytes]]] | None = None


class ReadAhead:
    """Reads the items of one unit after the other, one item at a time; see `ItemReader`.

    Args:
        reader: reads an item.
        note, live: are told what is being read.
    """

    def __init__(self, reader: ItemReader, note: InFlightNote, live: LiveStatus) -> None:
        self._reader, self._note, self._live = reader, note, live
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")

    @contextmanager
    def of(self, task: UnitTask, kept: KeptUnit) -> Iterator[Arrivals]:
        """Begin to read the items of a unit; what nobody waits for any more at the end is not read."""
        arrivals = Arrivals(self, task, kept, 0 if task.serial else READ_AHEAD)
        try:
            yield arrivals
        finally:
            arrivals.abandon()

    def expect(self, items: Sequence[WorkItem]) -> None:
        """Say which items come together; see `ItemReader.expect`."""
        self._reader.expect(items)

    def read(self, task: UnitTask, kept: KeptUnit, position: int, item: WorkItem) -> Arrival:
        """Read one item."""
        self._note.take(task.unit, position)
        start = time.perf_counter()
        try:
            with self._live.stage("reading", item.source_id):
                if (sample := kept.sample(item)) is not None:
                    found = sample, kept.members(item)
                    return Arrival(position, item, Reading(), time.perf_counter() - start, found)
                reading = self._reader.read(item)
        finally:
            self._note.put(task.unit, position)
        for frame in reading.media.frames if reading.media else ():
            frame.image.setflags(write=False)  # what a proposer writes there would be stored
        return Arrival(position, item, reading, time.perf_counter() - start)

    def submit(self, task: UnitTask, kept: KeptUnit, position: int, item: WorkItem) -> Future[Arrival]:
        """Read an item after those that were asked for before."""
        return self._thread.submit(self.read, task, kept, position, item)

    def interrupt(self) -> None:
        """End what is being read now."""
        self._reader.interrupt()

    def close(self) -> None:
        """Read nothing any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class Arrivals:
    """The items of a unit that are not poisoned, in order.

    Args:
        reads: reads them.
        task: the unit.
        kept: what earlier tries have kept of it.
        ahead: items that are asked for before they are needed; 0: each is read when it is needed.
    """

    def __init__(self, reads: ReadAhead, task: UnitTask, kept: KeptUnit, ahead: int) -> None:
        self._reads, self._task, self._kept = reads, task, kept
        wanted = [(place, item) for place, item in zip(task.positions, task.items) if place not in task.poisoned]
        reads.expect([item for _, item in wanted])
        self._left = deque(wanted)
        self._len = len(wanted)
        self._asked: deque[Future[Arrival]] = deque()
        self._ahead = ahead
        for _ in range(ahead):
            self._ask()

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Arrival]:
        while self._left or self._asked:
            if not self._asked:
                self._ask()
            arrival = self._asked[0].result()
            self._asked.popleft()
            if self._ahead:
                self._ask()
            yield arrival

    def abandon(self) -> None:
        """Nobody waits for the rest."""
        self._left.clear()
        running = [future for future in self._asked if not future.cancel() and not future.done()]
        if running:
            self._reads.interrupt()
            with contextlib.suppress(Exception):
                running[0].result()

    def _ask(self) -> None:
        if self._left:
            self._asked.append(self._reads.submit(self._task, self._kept, *self._left.popleft()))
