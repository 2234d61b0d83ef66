"""Calls a function for many items, in worker processes where that pays, and gives the results in their order.

Workers are fresh interpreters, never forks: file systems, Arrow and BLAS have threads, and a fork of a process with
threads may hang. They are not `multiprocessing`'s either, which run the caller's script again: a notebook, or a script
without `if __name__ == "__main__"`, may ask for them. Each has a pipe of its own, so that it is known which item a dead
worker had.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
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
    process: subprocess.Popen[bytes]
    connection: Connection
    item: int | None = None
    """The item that it is busy with."""

    @classmethod
    def start(cls) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            # Python's own path is handed over: the caller may have changed it.
            code = f"import json, sys; sys.path[:] = json.loads(sys.argv[2]); from {__name__} import serve; serve()"
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the parent's, which ends its workers
            )
        return cls(process, Connection(ours.detach()))


class _Pool(Generic[T, R]):
    def __init__(self, function: Callable[[T], R], items: Sequence[T], names: Sequence[str], workers: int) -> None:
        self._function, self._items, self._names = function, items, names
        self._next = 0
        self._answers: dict[int, tuple[bool, Any]] = {}
        self._num_workers = workers
        self._workers: list[_Worker] = []

    def results(self) -> Iterator[R]:
        try:
            for _ in range(self._num_workers):
                self._workers.append(_Worker.start())
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
                worker.process.kill()  # it holds nothing that must be put in order
                worker.process.wait()

    def _send(self, worker: _Worker) -> None:
        worker.item = None
        if self._next < len(self._items):
            worker.item, self._next = self._next, self._next + 1
            try:
                worker.connection.send((worker.item, self._function, self._items[worker.item]))
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
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(5)
        code, name = worker.process.returncode, self._names[worker.item or 0]
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        advice = " (out of memory?)" if code == -signal.SIGKILL else ""
        return JobError(f"{name}: the process that evaluated it {how}{advice}; --workers 1 does without processes")


def serve() -> None:
    """What a worker does: answer until the parent closes the pipe or is gone. The command line names the pipe."""
    connection: Connection = Connection(int(sys.argv[1]))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            number, function, item = connection.recv()
            try:
                answer = True, function(item)
            except (InputError, OSError) as error:
                answer = False, error
            except Exception as error:
                error.add_note("".join(traceback.format_exception(error)))  # it does not travel with the error
                answer = False, error
            connection.send((number, *answer))


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, also in the middle of an item."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
