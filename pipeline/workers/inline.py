"""Units one after the other in this process: the same work without Ray, for small inputs and for debugging."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.output import clean, complain
from trackmill.pipeline.workers.task import Tick, UnitTask, UnitWorker
from trackmill.schemas.media import WorkItem

R = TypeVar("R")


class InlineWorker(Generic[R]):
    """Runs units in this process.

    Args:
        start: makes the worker, with all models loaded.
        on_tick: called about twice a second with the state of the one worker, from a thread of its own.
        doing: what is done to an item, for messages.
    """

    def __init__(self, start: Callable[[], UnitWorker], on_tick: Tick, doing: str = UnitTask.doing) -> None:
        self._start = start
        self._on_tick = on_tick
        self._doing = doing

    def run(self, tasks: Iterable[UnitTask]) -> Iterator[R]:
        """Yield each unit's result as it is done.

        Raises:
            StorageFailed, DeviceLost: see `UnitWorker.run_unit`; units done so far stay done.
        """
        worker = self._start()
        worker.clock.watch(lambda position: _end_overdue(worker.status.source_id, self._doing))
        finished = threading.Event()

        def tick() -> None:
            while not finished.wait(0.5):
                self._on_tick({"this process": worker.status})

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            for task in tasks:
                yield worker.run_unit(task)
        finally:
            finished.set()
            ticker.join()
            worker.close()

    def measure(self, items: list[WorkItem]) -> list[tuple[int, float, int]]:
        """See `UnitWorker.measure`."""
        worker = self._start()
        try:
            return worker.measure(items)
        finally:
            worker.close()


def _end_overdue(source_id: str, doing: str) -> None:
    # No thread can be ended, so who waits for this one would wait for ever.
    complain(
        clean(
            f"{source_id}: {doing} takes longer than `run.item_timeout_s` allows, and nothing in this process can "
            "end it; --executor ray ends the worker, leaves the item out and goes on. What is done stays done"
        )
    )
    os._exit(ExitCode.FAILED)
