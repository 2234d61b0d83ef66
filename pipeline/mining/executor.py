"""Who does the units of a run, as its settings say: this process, or a pool of actors on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from trackmill.pipeline.mining.inline import InlineExecutor
from trackmill.pipeline.mining.prepare import Run
from trackmill.pipeline.mining.unit import UnitResult
from trackmill.pipeline.workers.task import Tick, UnitTask
from trackmill.schemas.media import WorkItem


class Executor(Protocol):
    """Runs units: `InlineExecutor` or `RayPool`."""

    def run(self, tasks: Iterator[UnitTask]) -> Iterator[UnitResult]:
        """Yield each unit's result as it is done."""
        ...

    def measure(self, items: list[WorkItem]) -> list[tuple[int, float, int]]:
        """(frames, seconds, bytes) of each item."""
        ...


def make_executor(run: Run, tick: Tick, died: Callable[[], None] = lambda: None) -> tuple[Executor, int, float]:
    """The executor that the settings ask for, the number of its workers and of its GPUs.

    Args:
        run: see `trackmill.pipeline.mining.prepare`.
        tick: called about twice a second with the state of every worker.
        died: called when a worker is found dead.

    Raises:
        Exception: Ray is not installed, or cannot be started.
    """
    if run.config.run.executor == "inline":
        return InlineExecutor(run.job(), tick), 1, 0
    from trackmill.pipeline.mining.pool import RayPool  # Ray is no part of what a run in this process needs

    pool = RayPool(run.job(), run.config.run, run.uses_gpu, tick, died)
    return pool, pool.size, pool.gpus
