"""A fixed pool of Ray actors that do units: the dead are replaced, their units done again, the guilty item set apart.

Why by hand: `ray.util.ActorPool` does not say which input failed, restarting actors fail every call that waits in their
queue, and Ray Data drops whole blocks. Here each actor has one unit; what it had in hand when it died is known
(`trackmill.pipeline.workers.inflight`), and an item that was in hand at two deaths is quarantined, alone. What follows
from what is decided without Ray, in `trackmill.pipeline.workers.decisions`; here is what Ray has to do with it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trackmill.pipeline.ray_cluster import start_ray
from trackmill.pipeline.storage.secrets.signed_urls import signatures_in
from trackmill.pipeline.workers.actor import Worker, read_note_there
from trackmill.pipeline.workers.decisions import Decisions, gpus_each, pool_size, recycle_after
from trackmill.pipeline.workers.inflight import InFlight, read_note
from trackmill.pipeline.workers.settings import PoolSettings
from trackmill.pipeline.workers.task import Job, Status, Tick, UnitTask
from trackmill.schemas.media import WorkItem

R = TypeVar("R")

log = logging.getLogger("trackmill")

_TICK_S = 0.5
_RESIZE_S = 10.0
_NOTE_TIMEOUT_S = 60


@dataclass(slots=True)
class _Slot:
    """One worker: its actor, the call that it works on, and what it last said of itself."""

    actor: Any
    call: Any
    worker: Worker | None = None
    status_call: Any = None
    status: Status | None = None


class WorkerPool(Generic[R]):
    """Runs units on Ray.

    Args:
        actor: Ray's class of `trackmill.pipeline.workers.actor.UnitActor`.
        job: what it is made with.
        settings: size of the pool and resources of each actor.
        uses_gpu: whether the work gains from a GPU.
        on_tick: called about twice a second with the state of every worker.
        loads: what does the work, for messages.
        fatal: see `Decisions`.

    Raises:
        RayUnavailable: Ray could not be started, or its cluster does not answer.
    """

    def __init__(
        self,
        actor: Any,
        job: Job,
        settings: PoolSettings,
        uses_gpu: bool,
        on_tick: Tick,
        loads: str = "the model",
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        self._actor = actor
        self._loads = loads
        self._fatal = fatal
        self._job = job
        self._settings = settings
        self._on_tick = on_tick
        if not ray.is_initialized():
            start_ray(settings.ray_start_timeout_s, without="--executor inline")
        resources = ray.cluster_resources()
        self._gpus_each = gpus_each(settings, uses_gpu, resources)
        if uses_gpu and settings.gpus_per_actor < 0 and not self._gpus_each:
            log.warning(
                "no GPU in this Ray cluster: %s runs on CPUs. If GPU nodes are still to come, "
                "say so: --set run.gpus_per_actor=1 --workers N",
                loads,
            )
        self.size = pool_size(settings, self._gpus_each, resources)
        self._sized_at = time.monotonic()
        self._slots: dict[int, _Slot] = {}

    @property
    def gpus(self) -> float:
        """GPUs that the whole pool takes."""
        return self.size * self._gpus_each

    def unit_done(self, result: R) -> None:
        """Called with each result before it is handed on."""

    def run(self, tasks: Iterable[UnitTask]) -> Iterator[R]:
        """Yield each unit's result as it is done, in no particular order.

        Raises:
            PoolFailed: workers die before they do anything, or one unit fails again and again.
            StorageFailed: the output cannot be written.
            Exception: what loading the models raised, or what is fatal.
        """
        decisions = Decisions(tasks, self.size, recycle_after(self._settings, self._gpus_each), self._fatal)
        try:
            while True:
                orders = decisions.orders()
                for number, task in orders.give:
                    slot = self._slots[number]
                    slot.status = None
                    slot.call = slot.actor.run_unit.remote(task)
                for number in orders.start:
                    self._slots[number] = self._new_slot()
                if decisions.finished_all:
                    return
                yield from self._collect(decisions)
                self._ask_status(decisions)
                self._follow_cluster(decisions)
        finally:
            self._end()

    def measure(self, items: list[WorkItem]) -> list[tuple[int, float, int]]:
        """See `UnitWorker.measure`; on one actor of this pool."""
        slot = self._new_slot()
        try:
            ray.get(slot.call)
            return list(ray.get(slot.actor.measure.remote(items, signatures_in(items))))
        except RayTaskError as error:
            raise _cause(error) from error
        finally:
            ray.kill(slot.actor)

    def _follow_cluster(self, decisions: Decisions) -> None:
        """Nodes join and leave while the work goes on."""
        if time.monotonic() - self._sized_at > _RESIZE_S:
            self.size = decisions.size = pool_size(self._settings, self._gpus_each, ray.cluster_resources())
            self._sized_at = time.monotonic()

    def _new_slot(self) -> _Slot:
        options: dict[str, Any] = {"num_cpus": self._settings.cpus_per_actor, "num_gpus": self._gpus_each}
        if self._settings.memory_per_actor:
            options["memory"] = self._settings.memory_per_actor
        # Never restarted by Ray: a restarting actor fails all calls in its queue at once.
        actor = self._actor.options(max_restarts=0, max_task_retries=0, **options).remote(self._job)
        return _Slot(actor, actor.start.remote())

    def _collect(self, decisions: Decisions) -> Iterator[R]:
        """Wait a moment, and deal with every call that has come to an end."""
        numbers = {slot.call: number for number, slot in self._slots.items() if slot.call is not None}
        calls = list(numbers)
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0) if calls else ([], [])
        if calls and not ready:
            ready = ray.wait(calls, num_returns=1, timeout=_TICK_S)[0]
        for call in ready:
            number = numbers[call]
            slot = self._slots[number]
            slot.call = None
            try:
                answer = ray.get(call)
            except RayTaskError as error:
                decisions.failed(number, _cause(error))
            except RayError as error:
                self._bury(number, error, decisions)
            else:
                if isinstance(answer, Worker):
                    slot.worker = answer
                    decisions.started(number, str(answer))
                else:
                    self.unit_done(answer)
                    yield answer
                    if decisions.finished(number):
                        self._retire(number)

    def _bury(self, number: int, error: RayError, decisions: Decisions) -> None:
        """A worker is gone: look up what it had in hand."""
        slot = self._slots.pop(number)
        with contextlib.suppress(Exception):
            ray.kill(slot.actor)  # unavailable is not dead: make sure that it does not write on
        busy = slot.worker is not None and decisions.task_of(number) is not None
        note = self._note_of(slot.worker) if busy and slot.worker else None
        decisions.died(number, error, note, machine_lost=note is None and _machine_lost(error, slot.worker))

    def _note_of(self, worker: Worker) -> InFlight | None:
        if worker.host == socket.gethostname():
            return read_note(worker.note_path)
        there = NodeAffinitySchedulingStrategy(node_id=worker.node_id, soft=False)
        try:
            note: InFlight | None = ray.get(
                read_note_there.options(scheduling_strategy=there).remote(worker.note_path), timeout=_NOTE_TIMEOUT_S
            )
            return note
        except (RayError, GetTimeoutError):
            return None  # the machine is gone, and its note with it

    def _ask_status(self, decisions: Decisions) -> None:
        states = {}
        for number, slot in self._slots.items():
            if slot.worker is None:
                states[f"worker {number}"] = Status(stage=f"waiting for a free CPU or GPU, or loading {self._loads}")
                continue
            task = decisions.task_of(number)
            if slot.status_call is not None and ray.wait([slot.status_call], timeout=0)[0]:
                with contextlib.suppress(RayError):
                    slot.status = ray.get(slot.status_call)
                slot.status_call = None
            if slot.status_call is None and task is not None:
                slot.status_call = slot.actor.status.remote()
            if slot.status and task and slot.status.unit == task.unit:
                states[str(slot.worker)] = slot.status
        self._on_tick(states)

    def _retire(self, number: int) -> None:
        slot = self._slots.pop(number)
        with contextlib.suppress(RayError, GetTimeoutError):
            ray.get(slot.actor.stop.remote(), timeout=10)
        ray.kill(slot.actor)

    def _end(self) -> None:
        stops = [slot.actor.stop.remote() for slot in self._slots.values() if slot.worker]
        with contextlib.suppress(RayError):
            ray.wait(stops, num_returns=len(stops), timeout=5) if stops else None
        for slot in self._slots.values():
            with contextlib.suppress(Exception):
                ray.kill(slot.actor)
        self._slots.clear()


def _machine_lost(error: RayError, worker: Worker | None) -> bool:
    """Whether a worker died because its machine did."""
    if getattr(error, "preempted", False):
        return True
    if worker is not None:
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return worker.node_id not in alive
    # Of a worker that was starting nothing is known but what Ray says.
    return "node has died" in str(error) or "NODE_DIED" in str(error)


def _cause(error: RayTaskError) -> Exception:
    return error.cause if isinstance(error.cause, Exception) else error
