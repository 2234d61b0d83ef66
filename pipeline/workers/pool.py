"""A fixed pool of Ray actors that do units: the dead are replaced, their units done again, the guilty item set apart.

Why by hand: `ray.util.ActorPool` does not say which input failed, restarting actors fail every call that waits in their
queue, and Ray Data drops whole blocks. Here each actor has one unit, and for a while the next one; what it had in hand
when it died is known (`trackmill.pipeline.workers.inflight`), and an item that was in hand at two deaths is
quarantined, alone. What follows from what is decided without Ray, in `trackmill.pipeline.workers.decisions`; here is
what Ray has to do with it. Answers come into a queue, so that no step looks at all workers.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trackmill.pipeline.ray_cluster import start_ray
from trackmill.pipeline.storage.secrets.signed_urls import signatures_in
from trackmill.pipeline.workers.actor import Worker, read_note_there
from trackmill.pipeline.workers.decisions import Decisions, Orders
from trackmill.pipeline.workers.inflight import InFlight, read_note
from trackmill.pipeline.workers.light import SpeedOfLight
from trackmill.pipeline.workers.settings import PoolSettings
from trackmill.pipeline.workers.sizing import gpus_each, pool_size, recycle_after
from trackmill.pipeline.workers.stopping import Stopping, seconds_to_work
from trackmill.pipeline.workers.task import Job, Status, Tick, UnitDone, UnitDropped, UnitTask
from trackmill.schemas.media import WorkItem

R = TypeVar("R", bound=UnitDone)

log = logging.getLogger("trackmill")

_TICK_S = 0.5
_RESIZE_S = 10.0
_NOTE_TIMEOUT_S = 60.0
_STOP_S = 10.0
_SUCCESSOR_S = 120.0
"""What a successor may take to be placed beside the worker that it replaces: a process has to be started for it."""
_ASKED_AT_ONCE = 32
"""Workers that are asked for their status in one tick: of many, each is asked less often."""


class _What(Enum):
    """What an answer is to."""

    START = "start"
    UNIT = "unit"
    NEARLY = "nearly"
    STATUS = "status"
    NOTE = "note"
    STOP = "stop"
    PLACED = "placed"


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to a worker, by its number; `unit` where it is about one."""

    what: _What
    worker: int
    unit: int = -1


@dataclass(slots=True)
class _Slot:
    """One worker: its actor, and what it last said of itself."""

    actor: Any
    worker: Worker | None = None
    status: Status | None = None
    asked: bool = False
    leaving: bool = False


@dataclass(slots=True)
class _Dead:
    """A worker that is gone, while the note of what it had in hand is fetched from its machine."""

    slot: _Slot
    error: RayError
    deadline: float


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
        self._dead: dict[int, _Dead] = {}
        self._retired: dict[int, tuple[Any, float]] = {}
        self._heirs: dict[int, float] = {}
        self._dropped = 0
        self._to_ask: deque[int] = deque()
        self._dead_nodes: set[str] = set()
        self.light = SpeedOfLight()
        self._answers: queue.SimpleQueue[tuple[_Call, Future[Any]]] = queue.SimpleQueue()

    @property
    def gpus(self) -> float:
        """GPUs that the whole pool takes."""
        return self.size * self._gpus_each

    def unit_done(self, result: R) -> None:
        """Called with each result before it is handed on."""

    def worker_died(self) -> None:
        """Called when a worker is found dead."""

    def run(self, tasks: Iterable[UnitTask]) -> Iterator[R]:
        """Yield each unit's result as it is done, in no particular order.

        Raises:
            PoolFailed: workers die before they do anything, or one unit fails again and again.
            StorageFailed: the output cannot be written.
            KeyboardInterrupt: this process was asked to stop; see `Stopping`.
            Exception: what loading the models raised, or what is fatal.
        """
        decisions = Decisions(tasks, self.size, recycle_after(self._settings, self._gpus_each), self._fatal)
        ticked = 0.0
        with Stopping(self._settings.grace_s) as stopping:
            try:
                while True:
                    self._follow(decisions.orders(), decisions)
                    if decisions.finished_all or stopping.late:
                        stopping.end(decisions.units_in_hand + self._dropped)
                        return
                    yield from self._collect(decisions)
                    if stopping.begins():
                        decisions.drain()
                        for slot in self._slots.values():
                            slot.actor.drop_after.remote(stopping.seconds_to_work)
                    if time.monotonic() - ticked >= _TICK_S:
                        ticked = time.monotonic()
                        self._tick(decisions)
            finally:
                self._end()
                if (light := self.light.sum_up()) is not None:
                    log.info("%s", light.line())

    def measure(self, items: list[WorkItem]) -> list[tuple[int, float, int]]:
        """See `UnitWorker.measure`; on one actor of this pool."""
        actor = self._new_actor()
        try:
            ray.get(actor.start.remote(self._settings.grace_s))
            return list(ray.get(actor.measure.remote(items, signatures_in(items))))
        except RayTaskError as error:
            raise _cause(error) from error
        finally:
            ray.kill(actor)

    def _follow(self, orders: Orders, decisions: Decisions) -> None:
        for number, task in orders.give:
            actor = self._slots[number].actor
            self._ask(_Call(_What.UNIT, number, task.unit), actor.run_unit.remote(task))
            self.light.given()
            self._ask(_Call(_What.NEARLY, number, task.unit), actor.wait_until_nearly_done.remote(task.unit))
        for number in orders.start:
            self._begin(number)
        for number in orders.succeed:
            # Asking for what is not there would make some clusters grow, by a machine that nobody needs afterwards.
            if self._fits(ray.available_resources()):
                self._begin(number)
                self._heirs[number] = time.monotonic() + _SUCCESSOR_S
                self._ask(_Call(_What.PLACED, number), self._slots[number].actor.status.remote())
            else:
                decisions.no_room(number)
        for number in orders.stop:
            self._retire(number)

    def _ask(self, call: _Call, answer: Any) -> None:
        """Put the answer to a call into the queue when it is there."""
        answer.future().add_done_callback(lambda future: self._answers.put((call, future)))

    def _begin(self, number: int) -> None:
        actor = self._new_actor()
        self._slots[number] = _Slot(actor)
        self._to_ask.append(number)
        self.light.ordered(number)
        self._ask(_Call(_What.START, number), actor.start.remote(self._settings.grace_s))

    def _new_actor(self) -> Any:
        options: dict[str, Any] = {"num_cpus": self._settings.cpus_per_actor, "num_gpus": self._gpus_each}
        if self._settings.memory_per_actor:
            options["memory"] = self._settings.memory_per_actor
        # Never restarted by Ray: a restarting actor fails all calls in its queue at once.
        return self._actor.options(max_restarts=0, max_task_retries=0, **options).remote(self._job)

    def _fits(self, free: Mapping[str, float]) -> bool:
        wanted = {"CPU": self._settings.cpus_per_actor, "GPU": self._gpus_each}
        wanted["memory"] = self._settings.memory_per_actor
        return all(free.get(name, 0) >= amount for name, amount in wanted.items())

    def _collect(self, decisions: Decisions) -> Iterator[R]:
        """Wait a moment, and deal with every call that has come to an end."""
        timeout = _TICK_S
        while True:
            try:
                call, answer = self._answers.get(timeout=timeout)
            except queue.Empty:
                return
            timeout = 0
            if call.what is _What.NOTE:
                self._bury(call.worker, () if answer.exception() else answer.result(), decisions)
            elif call.what is _What.STOP:
                self._end_retired(call.worker)
            elif (slot := self._slots.get(call.worker)) is not None:
                yield from self._answered(call, slot, answer, decisions)

    def _answered(self, call: _Call, slot: _Slot, answer: Future[Any], decisions: Decisions) -> Iterator[R]:
        error = answer.exception()
        if error is not None and not isinstance(error, RayError):
            raise error
        if call.what is _What.PLACED:
            self._heirs.pop(call.worker, None)
        elif call.what is _What.STATUS:
            slot.asked = False
            slot.status = answer.result() if error is None else None
        elif call.what is _What.NEARLY:
            if error is None:
                decisions.wants_more(call.worker, call.unit)
        elif isinstance(error, RayTaskError):
            cause = _cause(error)
            if isinstance(cause, UnitDropped):
                self._dropped += 1
                self.light.dropped(call.worker)
            decisions.failed(call.worker, cause, None if call.what is _What.START else call.unit)
        elif error is not None:
            self.light.gone(call.worker, lost=bool(decisions.tasks_of(call.worker)))
            self._lose(call.worker, error)
        elif call.what is _What.START:
            slot.worker = answer.result()
            decisions.started(call.worker, str(slot.worker))
            self.light.ready(call.worker, str(slot.worker))
        else:
            result: R = answer.result()
            self.light.told(call.worker, result.times)
            self.unit_done(result)
            yield result
            decisions.finished(call.worker, call.unit)

    def _lose(self, number: int, error: RayError) -> None:
        """A worker is gone: look up what it had in hand."""
        self.worker_died()
        slot = self._slots.pop(number)
        self._heirs.pop(number, None)
        with contextlib.suppress(Exception):
            ray.kill(slot.actor)  # unavailable is not dead: make sure that it does not write on
        self._dead[number] = _Dead(slot, error, time.monotonic() + _NOTE_TIMEOUT_S)
        call, worker = _Call(_What.NOTE, number), slot.worker
        if worker is None or worker.node_id in self._dead_nodes:
            known: tuple[InFlight, ...] = ()
        elif worker.host == socket.gethostname():
            known = read_note(worker.note_path)
        else:
            there = NodeAffinitySchedulingStrategy(node_id=worker.node_id, soft=False)
            self._ask(call, read_note_there.options(scheduling_strategy=there).remote(worker.note_path))
            return
        found: Future[Any] = Future()
        found.set_result(known)
        self._answers.put((call, found))

    def _bury(self, number: int, note: tuple[InFlight, ...], decisions: Decisions) -> None:
        """What a worker that is gone had in hand is known, or nobody will ever know it."""
        dead = self._dead.pop(number, None)
        if dead is not None:
            machine_lost = not note and self._machine_lost(dead.error, dead.slot.worker)
            decisions.died(number, dead.error, note, machine_lost)

    def _machine_lost(self, error: RayError, worker: Worker | None) -> bool:
        """Whether a worker died because its machine did."""
        if getattr(error, "preempted", False):
            return True
        if worker is not None:
            if worker.node_id not in self._dead_nodes:
                # Once for each machine, not for each of its workers.
                self._dead_nodes |= {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
            return worker.node_id in self._dead_nodes
        # Of a worker that was starting nothing is known but what Ray says.
        return "node has died" in str(error) or "NODE_DIED" in str(error)

    def _tick(self, decisions: Decisions) -> None:
        """About twice a second: ask how far they are, and look whether anybody has kept us waiting for too long."""
        now = time.monotonic()
        for number in [number for number, dead in self._dead.items() if dead.deadline < now]:
            self._bury(number, (), decisions)
        for number in [number for number, (_, deadline) in self._retired.items() if deadline < now]:
            self._end_retired(number)
        for number in [number for number, deadline in self._heirs.items() if deadline < now]:
            del self._heirs[number]
            ray.kill(self._slots.pop(number).actor)
            self.light.gone(number)
            decisions.no_room(number)
        if now - self._sized_at > _RESIZE_S:  # nodes join and leave while the work goes on
            self.size = decisions.size = pool_size(self._settings, self._gpus_each, ray.cluster_resources())
            self._sized_at = now
            self._leave_nodes(_draining_nodes(), decisions)
        self._ask_status()
        self._on_tick(self._states(decisions))

    def _leave_nodes(self, deadlines: Mapping[str, float], decisions: Decisions) -> None:
        """Machines are about to go away: their workers finish or drop what they have, and others are started."""
        for number, slot in self._slots.items() if deadlines else ():
            if slot.worker is not None and slot.worker.node_id in deadlines and not slot.leaving:
                slot.leaving = True
                decisions.leave(number)
                left = deadlines[slot.worker.node_id]
                slot.actor.drop_after.remote(seconds_to_work(min(left, self._settings.grace_s)))

    def _ask_status(self) -> None:
        for _ in range(min(_ASKED_AT_ONCE, len(self._to_ask))):
            number = self._to_ask.popleft()
            slot = self._slots.get(number)
            if slot is None:
                continue
            self._to_ask.append(number)
            if slot.worker is not None and not slot.asked:
                slot.asked = True
                self._ask(_Call(_What.STATUS, number), slot.actor.status.remote())

    def _states(self, decisions: Decisions) -> dict[str, Status]:
        states = {}
        for number, slot in self._slots.items():
            if slot.worker is None:
                states[f"worker {number}"] = Status(stage=f"waiting for a free CPU or GPU, or loading {self._loads}")
            elif slot.status is not None and (state := slot.status.only(decisions.tasks_of(number))) is not None:
                states[str(slot.worker)] = state
        return states

    def _retire(self, number: int) -> None:
        slot = self._slots.pop(number, None)
        if slot is None:
            return  # it died before it could be told to stop
        actor = slot.actor
        self.light.gone(number)
        self._retired[number] = actor, time.monotonic() + _STOP_S
        self._ask(_Call(_What.STOP, number), actor.stop.remote())

    def _end_retired(self, number: int) -> None:
        actor, _ = self._retired.pop(number, (None, 0.0))
        if actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(actor)

    def _end(self) -> None:
        for number in [number for number, slot in self._slots.items() if slot.worker]:
            self._retire(number)
        deadline = time.monotonic() + 5
        while self._retired and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                call, _ = self._answers.get(timeout=left)
                if call.what is _What.STOP:
                    self._end_retired(call.worker)
        for actor in [*(actor for actor, _ in self._retired.values()), *(slot.actor for slot in self._slots.values())]:
            with contextlib.suppress(Exception):
                ray.kill(actor)
        self._slots.clear()
        self._retired.clear()


def _draining_nodes() -> dict[str, float]:
    """Seconds that are left to nodes which Ray was told to clear; its own libraries ask so, there is no public call."""
    try:
        found = ray._private.state.state.get_draining_nodes()
    except (AttributeError, RayError, RuntimeError):
        return {}
    # Milliseconds since 1970; 0: there is no deadline.
    return {node: max(0.0, at / 1000 - time.time()) if at else math.inf for node, at in found.items()}


def _cause(error: RayTaskError) -> Exception:
    return error.cause if isinstance(error.cause, Exception) else error
