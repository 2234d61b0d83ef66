"""Mining in this process: the same work without Ray, for small inputs and for debugging."""

from __future__ import annotations

from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.mining.start import start_miner
from trackmill.pipeline.mining.unit import MineJob, UnitResult
from trackmill.pipeline.workers.inline import InlineWorker
from trackmill.pipeline.workers.task import Tick


class InlineExecutor(InlineWorker[UnitResult]):
    """Runs units in this process; see `InlineWorker`.

    Args:
        job: what to do.
        on_tick: called about twice a second with the state of the one worker, from a thread of its own.
    """

    def __init__(self, job: MineJob, on_tick: Tick) -> None:
        super().__init__(lambda: start_miner(job), on_tick, grace_s=mine_config(job.config, "job").run.grace_s)
