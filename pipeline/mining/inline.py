"""Units one after the other in this process: the same work without Ray, for small inputs and for debugging."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

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
