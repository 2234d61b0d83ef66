"""The Ray actor around a miner."""

from __future__ import annotations

import ray

from trackmill.pipeline.mining.miner import Miner
from trackmill.pipeline.mining.start import start_miner
from trackmill.pipeline.mining.unit import MineJob
from trackmill.pipeline.workers.actor import CONCURRENCY_GROUPS, UnitActor


@ray.remote(concurrency_groups=CONCURRENCY_GROUPS)  # type: ignore[call-overload]  # Ray's annotations know no groups
class MinerActor(UnitActor):
    """See `UnitActor`."""

    loads = "the proposer"

    def make_worker(self, job: MineJob) -> Miner:
        """See `start_miner`."""
        return start_miner(job)
