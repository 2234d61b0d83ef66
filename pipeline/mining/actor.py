"""The Ray actor around a miner: one per device or CPU, holding the loaded model for as long as it lives."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass

import ray

from trackmill.pipeline.mining.inflight import InFlight, read_note
from trackmill.pipeline.mining.miner import Miner
from trackmill.pipeline.mining.start import start_miner
from trackmill.pipeline.mining.unit import DeviceLost, MineJob, Status, UnitResult, UnitTask
from trackmill.pipeline.storage.credentials import adopt_environment
from trackmill.pipeline.storage.secrets.signed_urls import adopt_signatures
from trackmill.schemas.media import WorkItem

DEVICE_LOST_EXIT = 70
ITEM_OVERDUE_EXIT = 71


@dataclass(frozen=True, slots=True)
class Worker:
    """Where an actor lives: process, machine, Ray node, and the path of its in-flight note."""

    pid: int
    host: str
    node_id: str
    note_path: str

    def __str__(self) -> str:
        return f"{self.pid}@{self.host}"


@ray.remote(concurrency_groups={"status": 1})  # type: ignore[call-overload]  # Ray's annotations know no groups
class MinerActor:
    """Does one unit at a time; answers `status` meanwhile."""

    def __init__(self, job: MineJob) -> None:
        self._job = job
        self._miner: Miner | None = None

    def start(self) -> Worker:
        """Load the proposer. Apart from `__init__`, so that an error here reaches the driver as itself."""
        logging.basicConfig(level=logging.WARNING)
        adopt_environment(self._job.environment)
        self._miner = start_miner(self._job)
        self._miner.clock.watch(self._end_overdue)
        node_id = ray.get_runtime_context().get_node_id()
        return Worker(os.getpid(), socket.gethostname(), node_id, self._miner.note.path)

    def run_unit(self, task: UnitTask) -> UnitResult:
        """See `Miner.run_unit`."""
        assert self._miner is not None
        try:
            return self._miner.run_unit(task)
        except DeviceLost:
            # Only a new process gets a new CUDA context. Leaving the note behind charges the item in hand.
            logging.exception("the device failed; this worker ends and another takes its place")
            os._exit(DEVICE_LOST_EXIT)

    def measure(self, items: list[WorkItem], signatures: dict[str, str]) -> list[tuple[int, float, int]]:
        """See `Miner.measure`; `signatures` are the queries of the items' signed URLs."""
        assert self._miner is not None
        adopt_signatures(signatures)
        return self._miner.measure(items)

    @ray.method(concurrency_group="status")
    def status(self) -> Status:
        """What the miner is doing right now."""
        return self._miner.status if self._miner else Status(stage="loading the proposer")

    @ray.method(concurrency_group="status")
    def stop(self) -> None:
        """End in good order: leave nothing behind."""
        if self._miner:
            self._miner.close()

    def _end_overdue(self, position: int) -> None:
        """Mining an item hangs, and no thread can be ended: the process is, and the note says because of what."""
        assert self._miner is not None
        self._miner.note.blame(position)
        os._exit(ITEM_OVERDUE_EXIT)


@ray.remote(num_cpus=0, max_retries=0)
def read_note_there(path: str) -> InFlight | None:
    """Read a dead worker's note on its own machine."""
    return read_note(path)
