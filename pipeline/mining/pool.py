"""A fixed pool of Ray actors that do units: the dead are replaced, their units done again, the guilty item set apart.

Why by hand: `ray.util.ActorPool` does not say which input failed, restarting actors fail every call that waits in their
queue, and Ray Data drops whole blocks. Here each actor has one unit; what it had in hand when it died is known
(`trackmill.pipeline.mining.inflight`), and an item that was in hand at two deaths is quarantined, alone.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trackmill.pipeline.mining.actor import MinerActor, Worker, read_note_there
from trackmill.pipeline.mining.inflight import InFlight, read_note
from trackmill.pipeline.mining.metrics import MiningMetrics
from trackmill.pipeline.mining.settings import RunSettings
from trackmill.pipeline.mining.unit import MineJob, Status, StorageFailed, UnitResult, UnitTask, WorkFailed
from trackmill.pipeline.ray_cluster import start_ray
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")

_TICK_S = 0.5
_RESIZE_S = 10.0
_DEATHS_OF_AN_ITEM = 2
_FAILURES_OF_A_UNIT = 5
_DEATHS_AT_START = 3
_NOTE_TIMEOUT_S = 60
_RECYCLE_AFTER = 2000


class PoolFailed(WorkFailed):
    """The pool cannot go on; the text says why. What is done stays done."""


@dataclass(slots=True)
class _Slot:
    """One place in the pool: an actor, what it is asked at the moment, and what it last said."""

    actor: Any
    asked: Any
    asked_status: Any = None
    worker: Worker | None = None
    task: UnitTask | None = None
    items_done: int = 0
    status: Status | None = None


class RayPool:
    """Runs units on Ray.

    Args:
        job: what to do.
        settings: size of the pool and resources of each actor.
        uses_gpu: whether the proposer gains from a GPU.
        on_tick: called about twice a second with the state of every worker.
    """

    def __init__(
        self,
        job: MineJob,
        settings: RunSettings,
        uses_gpu: bool,
        on_tick: Callable[[dict[str, Status]], None],
    ) -> None:
        self._job = job
        self._settings = settings
        self._on_tick = on_tick
        if not ray.is_initialized():
            start_ray(settings.ray_start_timeout_s, without="--executor inline")
        gpus = ray.cluster_resources().get("GPU", 0)
        self._gpus_each = settings.gpus_per_actor
        if self._gpus_each < 0:
            self._gpus_each = 1 if uses_gpu and gpus else 0
            if uses_gpu and not gpus:
                log.warning(
                    "no GPU in this Ray cluster: the proposer runs on CPUs. If GPU nodes are still to come, "
                    "say so: --set run.gpus_per_actor=1 --actors N"
                )
        self._recycle_after = recycle_after(settings, self._gpus_each)
        self.size = self._wanted_size()
        self._sized_at = time.monotonic()
        self._slots: list[_Slot] = []
        self._waiting: deque[UnitTask] = deque()
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._failures: Counter[int] = Counter()
        self._deaths_at_start = 0
        self._metrics = MiningMetrics()

    @property
    def gpus(self) -> float:
        """GPUs that the whole pool takes."""
        return self.size * self._gpus_each

    def _wanted_size(self) -> int:
        if self._settings.actors:
            return self._settings.actors
        resources = ray.cluster_resources()
        if self._gpus_each:
            return max(1, int(resources.get("GPU", 0) / self._gpus_each))
        return max(1, int(resources.get("CPU", 1) / max(self._settings.cpus_per_actor, 0.01)))

    def _grow(self) -> None:
        """Follow the cluster: nodes join and leave while the work goes on."""
        if time.monotonic() - self._sized_at > _RESIZE_S:
            self.size = self._wanted_size()
            self._sized_at = time.monotonic()

    def run(self, tasks: Iterable[UnitTask]) -> Iterator[UnitResult]:
        """Yield each unit's result as it is done, in no particular order.

        Raises:
            PoolFailed: workers die before they do anything, or one unit fails again and again.
            StorageFailed: the output cannot be written.
            Exception: what loading the proposer raised.
        """
        incoming = iter(tasks)
        exhausted = False
        try:
            while True:
                idle = [slot for slot in self._slots if slot.worker and not slot.task]
                starting = sum(slot.worker is None for slot in self._slots)
                room = self.size - len(self._slots)
                while not exhausted and len(self._waiting) < len(idle) + starting + room:
                    task = next(incoming, None)
                    exhausted = task is None
                    if task is not None:
                        self._waiting.append(task)
                for slot in idle:
                    if self._waiting:
                        self._give(slot, self._waiting.popleft())
                for _ in range(min(room, len(self._waiting) - starting)):
                    self._slots.append(self._new_slot())
                if exhausted and not self._waiting and not any(slot.task for slot in self._slots):
                    return
                yield from self._collect()
                self._ask_status()
                self._grow()
        finally:
            self._end()

    def measure(self, items: list[WorkItem]) -> list[tuple[int, float, int]]:
        """See `Miner.measure`; on one actor of this pool."""
        slot = self._new_slot()
        try:
            ray.get(slot.asked)
            return list(ray.get(slot.actor.measure.remote(items)))
        except RayTaskError as error:
            raise _cause(error) from error
        finally:
            ray.kill(slot.actor)

    def _new_slot(self) -> _Slot:
        options: dict[str, Any] = {"num_cpus": self._settings.cpus_per_actor, "num_gpus": self._gpus_each}
        if self._settings.memory_per_actor:
            options["memory"] = self._settings.memory_per_actor
        # Never restarted by Ray: a restarting actor fails all calls in its queue at once.
        actor = MinerActor.options(max_restarts=0, max_task_retries=0, **options).remote(self._job)
        return _Slot(actor, actor.start.remote())

    def _give(self, slot: _Slot, task: UnitTask) -> None:
        slot.task = task
        slot.asked = slot.actor.run_unit.remote(task)

    def _collect(self) -> Iterator[UnitResult]:
        """Wait a moment, and deal with whatever was answered."""
        asked = {slot.asked: slot for slot in self._slots if slot.asked is not None}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0) if asked else ([], [])
        if not ready:
            ready = ray.wait(list(asked), num_returns=1, timeout=_TICK_S)[0] if asked else []
        for reference in ready:
            slot = asked[reference]
            try:
                answer = ray.get(reference)
            except RayTaskError as error:
                self._failed(slot, error)
            except RayError as error:
                self._died(slot, error)
            else:
                if isinstance(answer, Worker):
                    slot.worker, slot.asked = answer, None
                    self._deaths_at_start = 0
                else:
                    self._metrics.unit_done(answer)
                    yield answer
                    self._free(slot)

    def _free(self, slot: _Slot) -> None:
        assert slot.task is not None
        slot.items_done += len(slot.task.items)
        slot.task = slot.asked = slot.status = None
        if self._recycle_after and slot.items_done >= self._recycle_after:
            log.info("worker %s has done %d items and is replaced", slot.worker, slot.items_done)
            self._retire(slot)

    def _failed(self, slot: _Slot, error: RayTaskError) -> None:
        """A unit or a start raised: the worker lives, but the call did not succeed."""
        if slot.task is None:
            raise _cause(error)
        task, slot.task, slot.asked = slot.task, None, None
        self._again(task, _cause(error))

    def _again(self, task: UnitTask, cause: Exception) -> None:
        self._failures[task.unit] += 1
        if self._failures[task.unit] >= _FAILURES_OF_A_UNIT:
            if isinstance(cause, StorageFailed):
                raise cause
            raise PoolFailed(f"unit {task.unit} failed {_FAILURES_OF_A_UNIT} times; last: {cause}") from cause
        log.warning("unit %d failed and is done again: %s", task.unit, cause)
        self._waiting.appendleft(task)

    def _died(self, slot: _Slot, error: RayError) -> None:
        """A worker is gone: replace it, and find out whether an item is to blame."""
        self._slots.remove(slot)
        with contextlib.suppress(Exception):
            ray.kill(slot.actor)  # unavailable is not dead: make sure that it does not write on
        if slot.worker is None:
            self._deaths_at_start += 1
            if self._deaths_at_start >= _DEATHS_AT_START:
                raise PoolFailed(f"{_DEATHS_AT_START} workers died while starting (out of memory?); last: {error}")
            return
        if slot.task is None:
            return
        task = slot.task
        note = self._note_of(slot.worker)
        if note is None or note.unit != task.unit:
            self._again(task, PoolFailed(f"worker {slot.worker} was lost"))
            return
        poisoned = dict(task.poisoned)
        for position in sorted(note.positions):
            self._deaths[task.unit, position] += 1
            if self._deaths[task.unit, position] >= _DEATHS_OF_AN_ITEM:
                poisoned[position] = f"{_DEATHS_OF_AN_ITEM} workers died while they had this item in hand"
        ids = dict(zip(task.positions, task.items))
        suspects = ", ".join(ids[position].source_id for position in sorted(note.positions) if position in ids)
        log.warning("worker %s died with %s in hand; unit %d is done again", slot.worker, suspects, task.unit)
        # From now on one item at a time, so that the next death has one culprit.
        self._waiting.appendleft(replace(task, poisoned=poisoned, serial=True))

    def _note_of(self, worker: Worker) -> InFlight | None:
        if worker.host == socket.gethostname():
            return read_note(worker.note_path)
        there = NodeAffinitySchedulingStrategy(node_id=worker.node_id, soft=False)
        try:
            found: InFlight | None = ray.get(
                read_note_there.options(scheduling_strategy=there).remote(worker.note_path), timeout=_NOTE_TIMEOUT_S
            )
            return found
        except (RayError, GetTimeoutError):
            return None  # the machine is gone, and its note with it

    def _ask_status(self) -> None:
        for slot in self._slots:
            if slot.asked_status is not None and ray.wait([slot.asked_status], timeout=0)[0]:
                with contextlib.suppress(RayError):
                    slot.status = ray.get(slot.asked_status)
                slot.asked_status = None
            if slot.asked_status is None and slot.task is not None:
                slot.asked_status = slot.actor.status.remote()
        states = {}
        for number, slot in enumerate(self._slots):
            name = str(slot.worker) if slot.worker else f"worker {number}"
            if slot.worker is None:
                states[name] = Status(stage="waiting for a free CPU or GPU, or loading the proposer")
            elif slot.status and slot.task and slot.status.unit == slot.task.unit:
                states[name] = slot.status
        self._on_tick(states)

    def _retire(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        with contextlib.suppress(RayError, GetTimeoutError):
            ray.get(slot.actor.stop.remote(), timeout=10)
        ray.kill(slot.actor)

    def _end(self) -> None:
        stops = [slot.actor.stop.remote() for slot in self._slots if slot.worker]
        with contextlib.suppress(RayError):
            ray.wait(stops, num_returns=len(stops), timeout=5) if stops else None
        for slot in self._slots:
            with contextlib.suppress(Exception):
                ray.kill(slot.actor)
        self._slots.clear()


def recycle_after(settings: RunSettings, gpus_each: float) -> int:
    """Items after which an actor is replaced; 0: never, as long as nobody asks, for one whose GPU would then wait."""
    if settings.recycle_after >= 0:
        return settings.recycle_after
    return 0 if gpus_each else _RECYCLE_AFTER


def _cause(error: RayTaskError) -> Exception:
    return error.cause if isinstance(error.cause, Exception) else error
