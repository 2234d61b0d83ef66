"""What a pool does next: who gets which unit, whom a death is charged to, when a worker is replaced. No Ray in here.

The pool reports what happened (`started`, `wants_more`, `finished`, `failed`, `died`) and asks for `orders`. Workers
are numbers that are never used twice. A worker holds a unit, and for a while the next one beside it, see
`trackmill.pipeline.workers.turns`. A unit counts as done when its receipt is written; one that was not finished, for
whatever reason, goes to the front of the queue and is done again. An item that was in hand at two deaths, or that a
worker ended itself for, is left out from then on, alone. Only plain values pass, so every rule is tested without a
cluster. No step looks at all workers, so a thousand of them cost what eight do.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.workers.inflight import InFlight
from trackmill.pipeline.workers.output_pause import OutputPause
from trackmill.pipeline.workers.task import StorageFailed, UnitDropped, UnitTask, WorkFailed

log = logging.getLogger("trackmill")

DEATHS_OF_AN_ITEM = 2
FAILURES_OF_A_UNIT = 5
DEATHS_AT_START = 3
"""In a row, while nobody is at work: then nobody will ever be."""
LOSSES_OF_A_UNIT = 20
"""Machines that may go away under a unit: they are taken back by a cloud, or a unit's worker takes them down. It is the
unit if others seldom lose theirs meanwhile: a unit of minutes on machines that live for minutes is lost more often."""
_OWN_LOSSES = 1 / 3
"""Of all losses since its first one, so many are its own if it is to blame; those of a unit beside it count as well."""
_SUCCESSIONS = 8
"""Of so many workers one may be succeeded at a time: two processes hold a model for a while."""
_OVERDUE = "{} takes longer than `run.item_timeout_s` allows; raise that if it is meant to take so long"


class PoolFailed(WorkFailed):
    """The pool cannot go on; the text says why. What is done stays done."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the pool is to do now.

    Args:
        give: units, each for a worker that has none or wants another beside its own.
        start: workers to be started, by their new numbers.
        succeed: likewise, beside a worker that goes on until its successor is ready; where there is no room for one,
            `Decisions.no_room` is called.
        stop: workers that have no unit and are to be ended in good order; they are not counted any more.
    """

    give: list[tuple[int, UnitTask]]
    start: list[int]
    succeed: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _State:
    """One worker: not started yet, without a unit, or busy with `tasks`, in the order in which they were given.

    Args:
        nearly_done: units that leave it time for another one.
        leaving: it gets no unit any more.
        replaced: it is leaving, and does not count: another one is here in its place, or may be started.
    """

    name: str = ""
    tasks: dict[int, UnitTask] = field(default_factory=dict)
    nearly_done: set[int] = field(default_factory=set)
    items_done: int = 0
    leaving: bool = False
    replaced: bool = False


class Decisions:
    """The state of a pool.

    Args:
        tasks: units to be done; taken one at a time, when somebody is there to do them.
        size: workers that there should be; may be changed at any time. Fewer: the dead are not replaced.
        recycle_after: items after which a worker is replaced; 0: never.
        fatal: what a unit may raise that no second try would change: it ends the run at once, as itself.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        tasks: Iterable[UnitTask],
        size: int,
        recycle_after: int,
        fatal: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fatal = fatal
        self._pause = OutputPause(clock)
        self.size = size
        self._recycle_after = recycle_after
        self._incoming = iter(tasks)
        self._exhausted = self._draining = False
        self._waiting: deque[UnitTask] = deque()
        self._workers: dict[int, _State] = {}
        self._next_number = 0
        self._idle: dict[int, None] = {}  # dictionaries keep the order in which workers came
        self._eager: dict[int, None] = {}
        self._due: dict[int, None] = {}
        self._stop: list[int] = []
        self._starting = self._replaced = self._in_hand = 0
        self._heirs: dict[int, int] = {}
        self._has_room = True
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._failures: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()
        self._all_losses = 0
        self._losses_before: dict[int, int] = {}
        self._deaths_at_start = 0

    @property
    def finished_all(self) -> bool:
        """Whether no unit is left, neither waiting nor in work. Workers that are still starting will not be needed."""
        return not self._in_hand and (self._draining or (self._exhausted and not self._waiting))

    @property
    def units_in_hand(self) -> int:
        """Units that were given to workers and are not done."""
        return self._in_hand

    def tasks_of(self, worker: int) -> Mapping[int, UnitTask]:
        """Units of a worker by their numbers, in the order in which it got them; none of one that was let go."""
        state = self._workers.get(worker)
        return state.tasks if state is not None else {}

    def drain(self) -> None:
        """The run is to end: nobody is started, and no unit is given any more."""
        self._draining = True

    def leave(self, worker: int) -> None:
        """A worker is to end, for its machine is about to go away: it gets no unit, and another is started."""
        state = self._workers.get(worker)
        if state is not None and state.name:
            self._let_go(worker, replaced=True)

    def orders(self) -> Orders:
        """What to do now. The state is changed as if it were done."""
        stop, self._stop = self._stop, []
        if self._draining or self._pause.holds:
            return Orders([], [], [], stop)
        room = self.size - (len(self._workers) - self._replaced - len(self._heirs))
        takers = len(self._idle) + len(self._eager) + self._starting + room
        while not self._exhausted and len(self._waiting) < takers:
            task = next(self._incoming, None)
            if task is None:
                self._exhausted = True
            else:
                self._waiting.append(task)
        give = self._give()
        # A worker that is starting has a unit waiting for it already. After several deaths of starting workers one at a
        # time is tried, so that a machine where none can start is not kept busy with attempts.
        wanted = min(room, len(self._waiting) - self._starting)
        if self._deaths_at_start >= DEATHS_AT_START:
            wanted = min(wanted, 1 - self._starting)
        return Orders(give, [self._new_worker() for _ in range(wanted)], self._succeed(), stop)

    def started(self, worker: int, name: str) -> None:
        """A worker is ready for its first unit; messages call it `name`."""
        self._workers[worker].name = name
        self._starting -= 1
        self._deaths_at_start = 0
        self._idle[worker] = None
        if worker in self._heirs:
            old = self._heirs.pop(worker)
            log.info("worker %s is replaced by %s", self._workers[old].name, name)
            self._let_go(old, replaced=True)

    def no_room(self, heir: int) -> None:
        """A successor cannot be started beside the worker that it replaces: from now on one is ended first."""
        del self._workers[heir]
        self._starting -= 1
        if self._has_room:
            log.info("there is no room for two workers in the place of one: each is ended before its successor starts")
        self._has_room = False
        old = self._heirs.pop(heir, None)
        if old is not None:
            self._let_go(old, replaced=False)

    def wants_more(self, worker: int, unit: int) -> None:
        """A worker is nearly done with a unit. It gets another one once it has no other that is not published."""
        state = self._workers.get(worker)
        if state is not None and unit in state.tasks:
            state.nearly_done.add(unit)
            self._look_if_eager(worker, state)

    def finished(self, worker: int, unit: int) -> None:
        """A worker has written the receipt of a unit."""
        self._pause.written()
        state = self._workers[worker]
        state.items_done += len(self._take_back(worker, unit).items)
        if self._recycle_after and state.items_done >= self._recycle_after and not state.leaving:
            if self._has_room:
                self._due[worker] = None
            else:
                log.info("worker %s has done %s and is replaced", state.name, counted(state.items_done, "item"))
                self._let_go(worker, replaced=False)

    def failed(self, worker: int, cause: Exception, unit: int | None = None) -> None:
        """A start or a unit raised `cause`; the worker lives.

        Args:
            worker: whose.
            cause: what it raised.
            unit: which unit; None: the only one that it has.

        Raises:
            PoolFailed: the unit failed for the fifth time.
            StorageFailed: likewise, because nothing can be written; before that nothing is begun for a while.
            Exception: `cause` itself, of a start, or where it is fatal: another worker would meet the same.
        """
        state = self._workers[worker]
        if not state.tasks or isinstance(cause, self._fatal):
            raise cause
        task = self._take_back(worker, next(iter(state.tasks)) if unit is None else unit)
        if isinstance(cause, UnitDropped):
            self._waiting.appendleft(task)
            self.leave(worker)
            return
        self._do_again(task, cause)

    def died(self, worker: int, cause: Exception, note: Sequence[InFlight] | None, machine_lost: bool = False) -> None:
        """A worker is gone, and with it all of its units that have no receipt.

        Args:
            worker: it is not counted any more.
            cause: what Ray says of it.
            note: what it had in hand; None or nothing where that is not known, because its machine is gone too.
            machine_lost: its whole machine is gone: a cloud took it back, or it failed. Neither the unit nor the way
                workers start is to blame.

        Raises:
            PoolFailed: the third death in a row of a worker that was starting while nobody was at work, or see
                `failed`.
        """
        state = self._workers.pop(worker, None)
        if state is None:
            return  # it was let go, and had nothing any more
        self._forget(worker, state)
        if not state.name:
            self._starting -= 1
            self._died_at_start(cause, machine_lost)
            return
        self._in_hand -= len(state.tasks)
        held = {each.unit: each for each in note or ()}
        if any(each.overdue is not None for each in held.values()):
            held = {unit: each for unit, each in held.items() if each.overdue is not None}
        tasks = list(state.tasks.values())
        begun = [task for task in tasks if task.unit in held]
        if not machine_lost and not begun:
            begun = tasks[:1]  # the older one: it was between two items, or nothing is known
        # In reverse: each goes to the front of the queue.
        for task in reversed(tasks):
            if machine_lost:
                self._lost(state, task)
            elif task not in begun:
                self._waiting.appendleft(task)
            elif (own := held.get(task.unit)) is not None and own.positions:
                self._charge(state, task, own)
            else:
                self._do_again(task, PoolFailed(f"worker {state.name} was lost"))

    def _give(self) -> list[tuple[int, UnitTask]]:
        given = []
        while self._waiting:
            if self._idle:
                worker = next(iter(self._idle))
                del self._idle[worker]
            elif self._eager and not self._waiting[0].serial:
                worker = next(iter(self._eager))
                del self._eager[worker]
            else:
                break  # a unit that is done item by item shares its worker with no other, and keeps its place in line
            task = self._waiting.popleft()
            self._workers[worker].tasks[task.unit] = task
            self._in_hand += 1
            given.append((worker, task))
        return given

    def _succeed(self) -> list[int]:
        """Successors for workers that have done enough, a few at a time, as long as there is work for them."""
        heirs = []
        while self._due and (self._waiting or not self._exhausted):
            if len(self._heirs) >= max(1, self.size // _SUCCESSIONS):
                break
            old = next(iter(self._due))
            del self._due[old]
            heir = self._new_worker()
            self._heirs[heir] = old
            heirs.append(heir)
        return heirs

    def _take_back(self, worker: int, unit: int) -> UnitTask:
        """A unit is not in the hands of its worker any more."""
        state = self._workers[worker]
        task = state.tasks.pop(unit)
        state.nearly_done.discard(unit)
        self._in_hand -= 1
        self._eager.pop(worker, None)
        if state.leaving:
            self._stop_if_idle(worker)
        elif not state.tasks:
            self._idle[worker] = None
        else:
            self._look_if_eager(worker, state)
        return task

    def _look_if_eager(self, worker: int, state: _State) -> None:
        if len(state.tasks) == 1 and not state.leaving:
            ((unit, task),) = state.tasks.items()
            if unit in state.nearly_done and not task.serial:
                self._eager[worker] = None

    def _let_go(self, worker: int, replaced: bool) -> None:
        state = self._workers[worker]
        if replaced and not state.replaced:
            state.replaced = True
            self._replaced += 1
        state.leaving = True
        self._idle.pop(worker, None)
        self._eager.pop(worker, None)
        self._due.pop(worker, None)
        self._stop_if_idle(worker)

    def _stop_if_idle(self, worker: int) -> None:
        state = self._workers[worker]
        if state.name and not state.tasks:
            del self._workers[worker]
            self._forget(worker, state)
            self._stop.append(worker)

    def _forget(self, worker: int, state: _State) -> None:
        self._idle.pop(worker, None)
        self._eager.pop(worker, None)
        self._due.pop(worker, None)
        self._replaced -= state.replaced
        old = self._heirs.pop(worker, None)
        if old is not None and old in self._workers:
            self._due[old] = None  # its successor died; another one is tried
        for heir in [heir for heir, other in self._heirs.items() if other == worker]:
            del self._heirs[heir]  # from now on a worker like any other

    def _died_at_start(self, cause: Exception, machine_lost: bool) -> None:
        if machine_lost:
            log.warning("a machine went away while a worker was starting there; another one is started")
            return
        self._deaths_at_start += 1
        at_work = len(self._workers) - self._starting
        if self._deaths_at_start >= DEATHS_AT_START and not at_work:
            dead = counted(self._deaths_at_start, "worker")
            raise PoolFailed(f"{dead} died while starting (out of memory?), and none is at work; last: {cause}")
        log.warning("a worker died while starting (out of memory?), %d at work: %s", at_work, cause)

    def _lost(self, state: _State, task: UnitTask) -> None:
        before = self._losses_before.setdefault(task.unit, self._all_losses)
        self._losses[task.unit] += 1
        self._all_losses += 1
        own = self._losses[task.unit]
        if own >= LOSSES_OF_A_UNIT and own >= _OWN_LOSSES * (self._all_losses - before):
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
        if isinstance(cause, StorageFailed) and cause.may_pass:
            self._pause.failed(cause, self._failures[task.unit])
        else:
            log.warning("%s failed and is done again: %s", task.title, cause)
        self._waiting.appendleft(task)

    def _new_worker(self) -> int:
        number, self._next_number = self._next_number, self._next_number + 1
        self._workers[number] = _State()
        self._starting += 1
        return number
