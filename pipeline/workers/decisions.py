"""What a pool does next: who gets which unit, whom a death is charged to, when a worker is replaced. No Ray in here.

The pool reports what happened (`started`, `finished`, `failed`, `died`) and asks for `orders`. Workers are numbers that
are never used twice. A unit that was not finished goes to the front of the queue and is done again; an item that was in
hand at two deaths, or that a worker ended itself for, is left out from then on, alone. Only plain values pass, so every
rule is tested without a cluster.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from trackmill.pipeline.workers.inflight import InFlight
from trackmill.pipeline.workers.settings import PoolSettings
from trackmill.pipeline.workers.task import StorageFailed, UnitTask, WorkFailed

log = logging.getLogger("trackmill")

DEATHS_OF_AN_ITEM = 2
FAILURES_OF_A_UNIT = 5
DEATHS_AT_START = 3
"""In a row, while nobody is at work: then nobody will ever be."""
LOSSES_OF_A_UNIT = 20
"""Machines that may go away under a unit: they are taken back by a cloud, or a unit's worker takes them down."""
RECYCLE_AFTER = 2000
_OVERDUE = "{} takes longer than `run.item_timeout_s` allows; raise that if it is meant to take so long"


class PoolFailed(WorkFailed):
    """The pool cannot go on; the text says why. What is done stays done."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the pool is to do now.

    Args:
        give: a unit for each of these workers, which have none.
        start: workers to be started, by their new numbers.
    """

    give: list[tuple[int, UnitTask]]
    start: list[int]


@dataclass(slots=True)
class _State:
    """One worker: not started yet, without a unit, or busy with `task`."""

    name: str = ""
    task: UnitTask | None = None
    items_done: int = 0


class Decisions:
    """The state of a pool.

    Args:
        tasks: units to be done; taken one at a time, when somebody is there to do them.
        size: workers that there should be; may be changed at any time. Fewer: the dead are not replaced.
        recycle_after: items after which a worker is replaced; 0: never.
        fatal: what a unit may raise that no second try would change: it ends the run at once, as itself.
    """

    def __init__(
        self,
        tasks: Iterable[UnitTask],
        size: int,
        recycle_after: int,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        self._fatal = fatal
        self.size = size
        self._recycle_after = recycle_after
        self._incoming = iter(tasks)
        self._exhausted = False
        self._waiting: deque[UnitTask] = deque()
        self._workers: dict[int, _State] = {}
        self._next_number = 0
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._failures: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()
        self._deaths_at_start = 0

    @property
    def finished_all(self) -> bool:
        """Whether no unit is left, neither waiting nor in work. Workers that are still starting will not be needed."""
        return self._exhausted and not self._waiting and not any(state.task for state in self._workers.values())

    def task_of(self, worker: int) -> UnitTask | None:
        """The unit that a worker is busy with."""
        return self._workers[worker].task

    def orders(self) -> Orders:
        """What to do now. The state is changed as if it were done."""
        idle = [number for number, state in self._workers.items() if state.name and not state.task]
        starting = sum(not state.name for state in self._workers.values())
        room = self.size - len(self._workers)
        while not self._exhausted and len(self._waiting) < len(idle) + starting + room:
            task = next(self._incoming, None)
            if task is None:
                self._exhausted = True
            else:
                self._waiting.append(task)
        give = []
        for number in idle[: len(self._waiting)]:
            task = self._waiting.popleft()
            self._workers[number].task = task
            give.append((number, task))
        # A worker that is starting has a unit waiting for it already. After several deaths of starting workers one at a
        # time is tried, so that a machine where none can start is not kept busy with attempts.
        wanted = min(room, len(self._waiting) - starting)
        if self._deaths_at_start >= DEATHS_AT_START:
            wanted = min(wanted, 1 - starting)
        return Orders(give, [self._new_worker() for _ in range(wanted)])

    def started(self, worker: int, name: str) -> None:
        """A worker is ready for its first unit; messages call it `name`."""
        self._workers[worker].name = name
        self._deaths_at_start = 0

    def finished(self, worker: int) -> bool:
        """A worker has done its unit.

        Returns:
            Whether it has done enough: the pool ends it, and it is not counted any more.
        """
        state = self._workers[worker]
        assert state.task is not None
        state.items_done += len(state.task.items)
        state.task = None
        if not self._recycle_after or state.items_done < self._recycle_after:
            return False
        log.info("worker %s has done %d items and is replaced", state.name, state.items_done)
        del self._workers[worker]
        return True

    def failed(self, worker: int, cause: Exception) -> None:
        """A start or a unit raised `cause`; the worker lives.

        Raises:
            PoolFailed: the unit failed for the fifth time.
            StorageFailed: likewise, because nothing can be written.
            Exception: `cause` itself, of a start, or where it is fatal: another worker would meet the same.
        """
        state = self._workers[worker]
        if state.task is None or isinstance(cause, self._fatal):
            raise cause
        task, state.task = state.task, None
        self._do_again(task, cause)

    def died(self, worker: int, cause: Exception, note: InFlight | None, machine_lost: bool = False) -> None:
        """A worker is gone.

        Args:
            worker: it is not counted any more.
            cause: what Ray says of it.
            note: what it had in hand; None where that is not known, because its machine is gone too.
            machine_lost: its whole machine is gone: a cloud took it back, or it failed. Neither the unit nor the way
                workers start is to blame.

        Raises:
            PoolFailed: the third death in a row of a worker that was starting while nobody was at work, or see
                `failed`.
        """
        state = self._workers.pop(worker)
        if not state.name:
            self._died_at_start(cause, machine_lost)
            return
        if state.task is None:
            return
        if machine_lost:
            self._lost(state, state.task)
            return
        if note is None or note.unit != state.task.unit:
            self._do_again(state.task, PoolFailed(f"worker {state.name} was lost"))
            return
        self._charge(state, state.task, note)

    def _died_at_start(self, cause: Exception, machine_lost: bool) -> None:
        if machine_lost:
            log.warning("a machine went away while a worker was starting there; another one is started")
            return
        self._deaths_at_start += 1
        at_work = sum(bool(state.name) for state in self._workers.values())
        if self._deaths_at_start >= DEATHS_AT_START and not at_work:
            raise PoolFailed(
                f"{self._deaths_at_start} workers died while starting (out of memory?), and none is at work; last: "
                f"{cause}"
            )
        log.warning("a worker died while starting (out of memory?), %d are at work: %s", at_work, cause)

    def _lost(self, state: _State, task: UnitTask) -> None:
        self._losses[task.unit] += 1
        if self._losses[task.unit] >= LOSSES_OF_A_UNIT:
            raise PoolFailed(f"{task.title}: its machine went away {LOSSES_OF_A_UNIT} times")
        log.warning("worker %s went away with its machine; %s is done again", state.name, task.title)
        self._waiting.appendleft(task)

    def _charge(self, state: _State, task: UnitTask, note: InFlight) -> None:
        poisoned = dict(task.poisoned)
        if note.overdue is not None:
            # Known to the second, so nobody else is suspected, and it is not tried again.
            poisoned[note.overdue] = reason = _OVERDUE.format(task.doing)
            name = dict(zip(task.positions, task.items))[note.overdue].source_id
            log.warning("worker %s ended itself, %s: %s; %s is done again", state.name, name, reason, task.title)
            self._waiting.appendleft(replace(task, poisoned=poisoned, overdue=task.overdue | {note.overdue}))
            return
        for position in sorted(note.positions):
            self._deaths[task.unit, position] += 1
            if self._deaths[task.unit, position] >= DEATHS_OF_AN_ITEM:
                poisoned[position] = f"{DEATHS_OF_AN_ITEM} workers died while they had this item in hand"
        ids = dict(zip(task.positions, task.items))
        suspects = ", ".join(ids[position].source_id for position in sorted(note.positions) if position in ids)
        log.warning("worker %s died with %s in hand; %s is done again", state.name, suspects, task.title)
        # From now on one item at a time, so that the next death has one culprit.
        self._waiting.appendleft(replace(task, poisoned=poisoned, serial=True))

    def _do_again(self, task: UnitTask, cause: Exception) -> None:
        self._failures[task.unit] += 1
        if self._failures[task.unit] >= FAILURES_OF_A_UNIT:
            if isinstance(cause, StorageFailed):
                raise cause
            raise PoolFailed(f"{task.title} failed {FAILURES_OF_A_UNIT} times; last: {cause}") from cause
        log.warning("%s failed and is done again: %s", task.title, cause)
        self._waiting.appendleft(task)

    def _new_worker(self) -> int:
        number, self._next_number = self._next_number, self._next_number + 1
        self._workers[number] = _State()
        return number


def gpus_each(settings: PoolSettings, uses_gpu: bool, resources: Mapping[str, float]) -> float:
    """GPUs for each worker: as set; else one, where the cluster has any and the proposer gains from it.

    Args:
        settings: `gpus_per_actor`.
        uses_gpu: whether the proposer gains from a GPU.
        resources: of the cluster, by Ray's names (`CPU`, `GPU`).
    """
    if settings.gpus_per_actor >= 0:
        return settings.gpus_per_actor
    return 1 if uses_gpu and resources.get("GPU", 0) else 0


def pool_size(settings: PoolSettings, gpus: float, resources: Mapping[str, float]) -> int:
    """Workers for a cluster: as set; else as many as its GPUs, or where they need none its CPUs, have room for.

    Args:
        settings: `actors`, `cpus_per_actor`.
        gpus: of each worker.
        resources: of the cluster at this moment.
    """
    if settings.actors:
        return settings.actors
    if gpus:
        return max(1, int(resources.get("GPU", 0) / gpus))
    return max(1, int(resources.get("CPU", 1) / max(settings.cpus_per_actor, 0.01)))


def recycle_after(settings: PoolSettings, gpus: float) -> int:
    """Items after which a worker is replaced; 0: never. Unless set, one that holds a GPU is not: the GPU would wait."""
    if settings.recycle_after >= 0:
        return settings.recycle_after
    return 0 if gpus else RECYCLE_AFTER
