"""The Ray actor around a worker: one per device or CPU, holding the loaded model for as long as it lives."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import ray

from trackmill.pipeline.storage.credentials import adopt_environment
from trackmill.pipeline.storage.secrets.signed_urls import adopt_signatures
from trackmill.pipeline.workers.inflight import InFlight, read_note
from trackmill.pipeline.workers.output_pause import marked
from trackmill.pipeline.workers.stopping import seconds_to_work
from trackmill.pipeline.workers.task import DeviceLost, Job, Status, StorageFailed
from trackmill.pipeline.workers.unit_worker import UnitWorker
from trackmill.schemas.media import WorkItem

DEVICE_LOST_EXIT = 70
ITEM_OVERDUE_EXIT = 71
_SETTLE_S = 120.0
"""What a worker that ends itself leaves to the unit before, which is complete and being published."""

CONCURRENCY_GROUPS = {"status": 1, "units": 2, "ahead": 1}
"""For `ray.remote` of what derives from `UnitActor`: it answers `status` while it works, and has two units in hand."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Where an actor lives: process, machine, Ray node, and the path of its in-flight note."""

    pid: int
    host: str
    node_id: str
    note_path: str

    def __str__(self) -> str:
        return f"{self.pid}@{self.host}"


class UnitActor(ABC):
    """Does units, one beside the publishing of the one before; answers `status` meanwhile.

    Args:
        job: what is the same for all units.
    """

    loads = "the model"
    """What it does while it starts, for the status."""

    def __init__(self, job: Any) -> None:
        self._job: Any = job
        self._worker: UnitWorker | None = None
        self._grace_s = 0.0
        self._told_to_end = False
        if threading.current_thread() is threading.main_thread():
            # Who takes a machine back says so to its processes, Ray does not pass it on. This thread has nothing else
            # to do, so it hears of it at once.
            signal.signal(signal.SIGTERM, self._drain)

    @abstractmethod
    def make_worker(self, job: Any) -> UnitWorker:
        """Who does the units, with all models loaded."""

    def start(self, grace_s: float = 0.0) -> Worker:
        """Load the models. Apart from `__init__`, so that an error here reaches the driver as itself.

        Args:
            grace_s: seconds that it has for what is in hand when it gets SIGTERM.
        """
        logging.basicConfig(level=logging.WARNING)
        job: Job = self._job
        adopt_environment(job.environment)
        self._worker = self.make_worker(job)
        self._grace_s = grace_s
        if self._told_to_end:
            self._worker.turns.drop_after(0)
        self._worker.clock.watch(self._end_overdue)
        node_id = ray.get_runtime_context().get_node_id()
        return Worker(os.getpid(), socket.gethostname(), node_id, self._worker.note.path)

    @ray.method(concurrency_group="units")
    def run_unit(self, task: Any) -> Any:
        """See `UnitWorker.run_unit`."""
        assert self._worker is not None
        try:
            return self._worker.run_unit(task)
        except StorageFailed as failed:
            raise marked(failed) from failed.__cause__
        except DeviceLost:
            # Only a new process gets a new CUDA context. The note that is left behind charges this unit, and no other.
            logging.exception("the device failed; this worker ends and another takes its place")
            self._worker.note.publish(task.unit)
            self._worker.turns.settle(_SETTLE_S)
            os._exit(DEVICE_LOST_EXIT)

    @ray.method(concurrency_group="ahead")
    def wait_until_nearly_done(self, unit: int) -> None:
        """See `Turns.wait_until_nearly_done`."""
        assert self._worker is not None
        self._worker.turns.wait_until_nearly_done(unit)

    def measure(self, items: list[WorkItem], signatures: dict[str, str]) -> list[tuple[int, float, int]]:
        """See `UnitWorker.measure`; `signatures` are the queries of the items' signed URLs."""
        assert self._worker is not None
        adopt_signatures(signatures)
        return self._worker.measure(items)

    @ray.method(concurrency_group="status")
    def status(self) -> Status:
        """What the worker is doing right now."""
        return self._worker.status if self._worker else Status(stage=f"loading {self.loads}")

    @ray.method(concurrency_group="status")
    def drop_after(self, seconds: float) -> None:
        """See `Turns.drop_after`."""
        if self._worker:
            self._worker.turns.drop_after(seconds)

    @ray.method(concurrency_group="status")
    def stop(self) -> None:
        """End in good order: leave nothing behind."""
        if self._worker:
            self._worker.close()

    def _drain(self, number: int, frame: object) -> None:
        """SIGTERM: finish or drop what is in hand. The pool hears of it by what is dropped, and ends this process."""
        self._told_to_end = True
        if self._worker:
            self._worker.turns.drop_after(seconds_to_work(self._grace_s))

    def _end_overdue(self, item: tuple[int, int]) -> None:
        """Work on an item hangs, and no thread can be ended: the process is, and the note says because of what."""
        assert self._worker is not None
        self._worker.turns.settle(_SETTLE_S)
        self._worker.note.blame(*item)
        os._exit(ITEM_OVERDUE_EXIT)


@ray.remote(num_cpus=0, max_retries=0)
def read_note_there(path: str) -> tuple[InFlight, ...]:
    """Read a dead worker's note on its own machine."""
    return read_note(path)
