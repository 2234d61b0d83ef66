"""Parts of a sidecar on Ray: `trackmill.pipeline.workers.pool` with actors that make parts."""

from __future__ import annotations

import ray

from trackmill.pipeline.sidecars.part_work import PartResult, SidecarWork
from trackmill.pipeline.sidecars.producer import BadRows
from trackmill.pipeline.sidecars.settings import SidecarRunSettings
from trackmill.pipeline.sidecars.worker import PartWorker
from trackmill.pipeline.workers.actor import CONCURRENCY_GROUPS, UnitActor
from trackmill.pipeline.workers.pool import WorkerPool
from trackmill.pipeline.workers.task import Tick


@ray.remote(concurrency_groups=CONCURRENCY_GROUPS)  # type: ignore[call-overload]  # Ray's annotations know no groups
class SidecarActor(UnitActor):
    """See `UnitActor`."""

    loads = "the producer"

    def make_worker(self, job: SidecarWork) -> PartWorker:
        """See `PartWorker`."""
        return PartWorker(job)


class SidecarPool(WorkerPool[PartResult]):
    """Makes parts on Ray; see `WorkerPool`.

    Args:
        work: what to make.
        settings: size of the pool and resources of each actor.
        on_tick: called about twice a second with the state of every worker.
    """

    def __init__(self, work: SidecarWork, settings: SidecarRunSettings, on_tick: Tick) -> None:
        # A producer that breaks its contract does so again, whoever asks it.
        super().__init__(
            SidecarActor, work, settings, work.job.uses_gpu, on_tick, loads="the producer", fatal=(BadRows,)
        )
