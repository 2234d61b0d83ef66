"""Units one after the other in this process: the same work without Ray, for small inputs and for debugging."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator

from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.output import clean, complain
from trackmill.pipeline.mining.start import start_miner
from trackmill.pipeline.mining.unit import MineJob, Status, UnitResult, UnitTask
from trackmill.schemas.media import WorkItem


class InlineExecutor:
    """Runs units in this process.

    Args:
        job: what to do.
        on_tick: called about twice a second with the state of the one worker, from a thread of its own.
    """

    def __init__(self, job: MineJob, on_tick: Callable[[dict[str, Status]], None]) -> None:
        self._job = job
        self._on_tick = on_tick

    def run(self, tasks: Iterable[UnitTask]) -> Iterator[UnitResult]:
        """Yield each unit's result as it is done.

        Raises:
            StorageFailed, DeviceLost: see `Miner.run_unit`; units done so far stay done.
        """
        miner = start_miner(self._job)
        miner.clock.watch(lambda position: _end_overdue(miner.status.source_id))
        finished = threading.Event()

        def tick() -> None:
            while not finished.wait(0.5):
                self._on_tick({"this process": miner.status})

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            for task in tasks:
                yield miner.run_unit(task)
        finally:
            finished.set()
            ticker.join()
            miner.close()

    def measure(self, items: list[WorkItem]) -> list[tuple[int, float, int]]:
        """See `Miner.measure`."""
        miner = start_miner(self._job)
        try:
            return miner.measure(items)
        finally:
            miner.close()


def _end_overdue(source_id: str) -> None:
    # No thread can be ended, so who waits for this one would wait for ever.
    complain(
        clean(
            f"{source_id}: mining it takes longer than `run.item_timeout_s` allows, and nothing in this process can "
            "end it; --executor ray ends the worker, leaves the item out and goes on. What is done stays done"
        )
    )
    os._exit(ExitCode.FAILED)
