"""Calls a function for many items, in worker processes where that pays, and gives the results in their order.

Workers are started afresh (`spawn`), never forked: file systems, Arrow and BLAS have threads, and a fork of a process
with threads may hang. Each worker has a pipe of its own, so that the parent knows which item a dead worker had.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from trackmill.schemas.errors import InputError, JobError

T = TypeVar("T")
R = TypeVar("R")

START_S = 1.0
"""About what a worker takes to start: Python, NumPy, SciPy and Arrow are imported anew."""
_WORTH = 3.0
"""Processes are started when they save this many times `START_S`; guesses of the time left are rough."""


def results_in_order(
    function: Callable[[T], R], items: Sequence[T], names: Sequence[str], workers: int | None = 1
) -> Iterator[R]:
    """`function(item)` of each item, in order. What is computed does not depend on where.

    Args:
        function: can be pickled, as its items and results can.
        items: one or more.
        names: of the items, for errors.
        workers: number of processes; 1 stays in this one. None begins here, and starts one a free processor for the
            rest once the time per item says that this saves more than the start costs.

    Raises:
        JobError: a worker died; names its item.
        Exception: what `function` raises, for the first item in order.
    """
    if workers is None:
        begin, count = time.perf_counter(), free_processors()
        for done, item in enumerate(items, start=1):
            yield function(item)
            left = len(items) - done
            saved = (time.perf_counter() - begin) / done * (left - -(-left // count))
            if saved > _WORTH * START_S:
                break
        else:
            return
        items, names, workers = items[done:], names[done:], count
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(function, items)
    else:
        yield from _Pool(function, items, names, workers).results()


def free_processors() -> int:
    """Processors that this process may use and that nothing else has kept busy for the last minute; at least 1."""
    count = mine = os.cpu_count() or 1
    with contextlib.suppress(AttributeError, OSError):
        mine = len(os.sched_getaffinity(0))
        count -= int(os.getloadavg()[0])
    return max(1, min(mine, count))


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    item: int | None = None
    """The item that it is busy with."""


class _Pool(Generic[T, R]):
    def __init__(self, function: Callable[[T], R], items: Sequence[T], names: Sequence[str], workers: int) -> None:
        self._items, self._names = items, names
        self._next = 0
        self._answers: dict[int, tuple[bool, Any]] = {}
        context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, function), daemon=True)
            process.start()
            theirs.close()  # so that the pipe ends with the worker
            self._workers.append(_Worker(process, ours))

    def results(self) -> Iterator[R]:
        try:
            for worker in self._workers:
                self._send(worker)
            for number in range(len(self._items)):
                while number not in self._answers:
                    self._receive()
                fine, answer = self._answers.pop(number)
                if not fine:
                    raise answer
                yield answer
        finally:
            for worker in self._workers:
                worker.connection.close()
                worker.process.terminate()
            for worker in self._workers:
                worker.process.join(5)

    def _send(self, worker: _Worker) -> None:
        worker.item = None
        if self._next < len(self._items):
            worker.item, self._next = self._next, self._next + 1
            try:
                worker.connection.send((worker.item, self._items[worker.item]))
            except OSError:
                raise self._dead(worker) from None

    def _receive(self) -> None:
        """Take the answers that are there, and hand out as many items."""
        busy = {worker.connection: worker for worker in self._workers if worker.item is not None}
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]
            try:
                number, *answer = worker.connection.recv()
            except (EOFError, OSError):
                raise self._dead(worker) from None
            self._answers[number] = (answer[0], answer[1])
            self._send(worker)

    def _dead(self, worker: _Worker) -> JobError:
        worker.process.join(5)
        code, name = worker.process.exitcode, self._names[worker.item or 0]
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        advice = " (out of memory?)" if code == -signal.SIGKILL else ""
        return JobError(f"{name}: the process that evaluated it {how}{advice}; --workers 1 does without processes")


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """What a worker does: answer until the parent closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            number, item = connection.recv()
            try:
                answer = True, function(item)
            except (InputError, OSError) as error:
                answer = False, error
            except Exception as error:
                error.add_note("".join(traceback.format_exception(error)))  # it does not travel with the error
                answer = False, error
            connection.send((number, *answer))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
