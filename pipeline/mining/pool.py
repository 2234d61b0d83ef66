"""Mining on Ray: `trackmill.pipeline.workers.pool` with actors that hold miners."""

from __future__ import annotations

from collections.abc import Callable

from trackmill.pipeline.mining.actor import MinerActor
from trackmill.pipeline.mining.unit import MineJob, UnitResult
from trackmill.pipeline.workers.pool import WorkerPool
from trackmill.pipeline.workers.settings import PoolSettings
from trackmill.pipeline.workers.task import Tick


class RayPool(WorkerPool[UnitResult]):
    """Runs units on Ray; see `WorkerPool`.

    Args:
        job: what to do.
        settings: size of the pool and resources of each actor.
        uses_gpu: whether the proposer gains from a GPU.
        on_tick: called about twice a second with the state of every worker.
        on_death: called when a worker is found dead.

    Raises:
        RayUnavailable: Ray could not be started, or its cluster does not answer.
    """

    def __init__(
        self,
        job: MineJob,
        settings: PoolSettings,
        uses_gpu: bool,
        on_tick: Tick,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(MinerActor, job, settings, uses_gpu, on_tick, loads="the proposer")
        self._on_death = on_death

    def worker_died(self) -> None:
        """See `WorkerPool.worker_died`."""
        self._on_death()
