"""Units in this process: the same work without Ray, for small inputs and for debugging."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.output import clean, complain
from trackmill.pipeline.workers.decisions import FAILURES_OF_A_UNIT
from trackmill.pipeline.workers.light import SpeedOfLight
from trackmill.pipeline.workers.output_pause import OutputPause, marked
from trackmill.pipeline.workers.stopping import Stopping
from trackmill.pipeline.workers.task import StorageFailed, Tick, UnitDone, UnitDropped, UnitTask
from trackmill.pipeline.workers.unit_worker import UnitWorker
from trackmill.schemas.media import WorkItem

R = TypeVar("R", bound=UnitDone)

log = logging.getLogger("trackmill")

_TICK_S = 0.5
_MOST_UNITS = 2
_LAST_S = 5.0
"""What the threads of a run that has failed may take to leave: an item that hangs is not waited for."""


class InlineWorker(Generic[R]):
    """Runs units in this process, each beside the publishing of the one before.

    Args:
        start: makes the worker, with all models loaded.
        on_tick: called about twice a second with the state of the one worker.
        doing: what is done to an item, for messages.
        grace_s: see `PoolSettings`.
    """

    def __init__(
        self, start: Callable[[], UnitWorker], on_tick: Tick, doing: str = UnitTask.doing, grace_s: float = 0.0
    ) -> None:
        self._grace_s = grace_s
        self.light = SpeedOfLight()
        self._start = start
        self._on_tick = on_tick
        self._doing = doing

    def run(self, tasks: Iterable[UnitTask]) -> Iterator[R]:
        """Yield each unit's result as it is done.

        Raises:
            StorageFailed, DeviceLost: see `UnitWorker.run_unit`; units done so far stay done. A unit whose output
                could not be written, which may pass, is tried `FAILURES_OF_A_UNIT` times.
            KeyboardInterrupt: this process was asked to stop; see `Stopping`.
        """
        self.light.ordered(0)
        worker = self._start()
        self.light.ready(0, "this process")
        in_hand: dict[int, UnitTask] = {}
        worker.clock.watch(lambda item: self._end_overdue(worker, in_hand, *item))
        waiting = iter(tasks)
        again: deque[UnitTask] = deque()
        failures: Counter[int] = Counter()
        pause = OutputPause()
        events: queue.SimpleQueue[tuple[int, R | BaseException | None]] = queue.SimpleQueue()
        threads: list[threading.Thread] = []
        nearly: set[int] = set()
        more, dropped = True, 0
        ticked = time.monotonic()
        with Stopping(self._grace_s) as stopping:
            try:
                while True:
                    while (again or more) and len(in_hand) < _MOST_UNITS and nearly.issuperset(in_hand):
                        if pause.holds:
                            break
                        task = again.popleft() if again else next(waiting, None)
                        if task is None:
                            more = False
                        else:
                            self.light.given()
                            in_hand[task.unit] = task
                            threads = [thread for thread in threads if thread.is_alive()]
                            threads += self._do(worker, task, events)
                    if not (in_hand or again) or stopping.late:
                        stopping.end(len(in_hand) + dropped)
                        return
                    try:
                        unit, answer = events.get(timeout=_TICK_S)
                    except queue.Empty:
                        pass
                    else:
                        if answer is None:
                            nearly.add(unit)
                        else:
                            ended = in_hand.pop(unit)
                            nearly.discard(unit)
                            if isinstance(answer, UnitDropped) and stopping.asked:
                                dropped += 1
                            elif (
                                isinstance(answer, StorageFailed)
                                and answer.may_pass
                                and not stopping.asked
                                and failures[unit] < FAILURES_OF_A_UNIT - 1
                            ):
                                failures[unit] += 1
                                pause.failed(answer, failures[unit])
                                again.append(ended)
                            elif isinstance(answer, BaseException):
                                raise answer
                            else:
                                pause.written()
                                self.light.told(0, answer.times)
                                yield answer
                    if stopping.begins():
                        more = False
                        dropped += len(again)
                        again.clear()
                        worker.turns.drop_after(stopping.seconds_to_work)
                    if time.monotonic() - ticked >= _TICK_S:
                        ticked = time.monotonic()
                        status = worker.status.only(in_hand)
                        self._on_tick({"this process": status} if status else {})
            finally:
                if in_hand or dropped:
                    self.light.dropped(0)
                if (light := self.light.sum_up()) is not None:
                    log.info("%s", light.line())
                worker.turns.drop_after(0)
                until = time.monotonic() + _LAST_S
                for thread in threads:
                    thread.join(max(0.0, until - time.monotonic()))
                worker.close()

    def measure(self, items: list[WorkItem]) -> list[tuple[int, float, int]]:
        """See `UnitWorker.measure`."""
        worker = self._start()
        try:
            return worker.measure(items)
        finally:
            worker.close()

    def _do(
        self, worker: UnitWorker, task: UnitTask, events: queue.SimpleQueue[tuple[int, R | BaseException | None]]
    ) -> list[threading.Thread]:
        """Begin a unit: two threads put into `events` what comes of it, and before that when it is nearly done."""

        def run() -> None:
            answer: R | BaseException
            try:
                answer = worker.run_unit(task)
            except StorageFailed as failed:
                answer = marked(failed)
            except BaseException as error:
                answer = error
            events.put((task.unit, answer))

        def look() -> None:
            worker.turns.wait_until_nearly_done(task.unit)
            events.put((task.unit, None))

        # Daemons: a process that ends does not wait for an item that hangs.
        threads = [threading.Thread(target=each, name=task.title, daemon=True) for each in (run, look)]
        for thread in threads:
            thread.start()
        return threads

    def _end_overdue(self, worker: UnitWorker, in_hand: dict[int, UnitTask], unit: int, position: int) -> None:
        # No thread can be ended, so who waits for this one would wait for ever.
        task = in_hand.get(unit)
        item = dict(zip(task.positions, task.items)).get(position) if task else None
        complain(
            clean(
                f"{item.source_id if item else worker.status.source_id}: {self._doing} takes longer than "
                "`run.item_timeout_s` allows, and nothing in this process can end it; --executor ray ends the worker, "
                "leaves the item out and goes on. What is done stays done"
            )
        )
        os._exit(ExitCode.FAILED)
