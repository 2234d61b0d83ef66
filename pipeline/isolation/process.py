"""Child processes, from the parent's side: started once, reused by other callers, replaced when they die."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from trackmill.pipeline.isolation.child import Answer, Begin, Call
from trackmill.pipeline.isolation.limits import Limits, ReaderDied, too_long, too_much_memory
from trackmill.pipeline.isolation.wire import Closed, TooLarge, receive, send
from trackmill.pipeline.storage.secrets.signed_urls import signatures_in
from trackmill.schemas.errors import JobError

_START_S = 600.0
"""A child is ready in half a second; a machine that is overloaded may take long."""

_SLACK_BYTES = 256 << 20
"""What an answer may be larger than the memory that its call may take: no valid answer is larger."""

_MOST_IDLE = 4

_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from trackmill.pipeline.isolation.child import serve; serve(int(sys.argv[1]))"
)


class ChildFailed(JobError):
    """A child process could not be started, or the object that it should hold could not be built."""


class ChildKilled(ChildFailed):
    """A signal ended the process before it held its object, which says nothing of the object: another one may do."""


class CallFailed(JobError):
    """A method that was called in a child raised an error, which it should not: a bug, told with class and text."""


class Child:
    """A process that holds one object and calls its methods. Used by one thread at a time."""

    def __init__(self) -> None:
        self.key = _key()
        self._limits = Limits()
        self._link, theirs = socket.socketpair()
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])
        command = [sys.executable, "-c", _MAIN, str(theirs.fileno()), paths]
        # One thread: each library would start one for every core, in every child. Few arenas, so that memory that is
        # freed can be used again by another thread.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        try:
            with theirs:
                # What code prints while it reads is no result of the job: standard output belongs to that.
                self._process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2, env=environment
                )
        except OSError as error:
            self._link.close()
            raise ChildFailed(f"no child process can be started: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def begin(self, factory: Callable[..., Any], args: tuple[Any, ...], limits: Limits, threads: int = 1) -> None:
        """Let the child build an object; it exists once `wait_until_ready` returns.

        Args:
            factory: importable by its name.
            args: of `factory`; they are pickled.
            limits: of each call.
            threads: calls at once.

        Raises:
            ChildKilled: the process is gone.
        """
        self._limits = limits
        try:
            send(self._link, Begin(factory, args, limits, threads, dict(os.environ), os.getcwd(), signatures_in(args)))
        except Closed:
            raise ChildKilled(f"a child process {self._how_it_ended()} before it was used") from None

    def wait_until_ready(self) -> None:
        """Wait for what `begin` started.

        Raises:
            ChildFailed: the factory raised something, or the process died (`ChildKilled` where a signal ended it).
        """
        try:
            answer: Answer = receive(self._link, seconds=_START_S)
        except TimeoutError:
            raise ChildFailed(f"a child process did not start within {_START_S:g} s") from None
        except (Closed, TooLarge):
            how = self._how_it_ended()
            killed = (self._process.returncode or 0) < 0 and how != _OUT_OF_TIME
            raise (ChildKilled if killed else ChildFailed)(f"a child process {how} while it started") from None
        if answer.failed:
            raise ChildFailed(f"a child process could not start: {answer.failed}")

    def send(self, call: Call) -> None:
        """Send a call of a method to the child.

        Raises:
            ReaderDied: the process is gone.
        """
        try:
            send(self._link, call)
        except Closed:
            raise ReaderDied(f"the process that read it {self._how_it_ended()}") from None

    def receive(self, seconds: float | None) -> Answer:
        """Wait for the answer to any call.

        Raises:
            TimeLimit: none came in time; the process is ended.
            MemoryLimit: the process met its limit and is gone.
            ReaderDied: the process is gone, or is ended because of what it sent.
        """
        most = self._limits.memory_bytes + _SLACK_BYTES if self._limits.memory_bytes else 0
        try:
            answer: Answer = receive(self._link, seconds=seconds, max_bytes=most)
        except TimeoutError:
            self.kill()
            raise too_long(self._limits) from None
        except TooLarge:
            self.kill()
            raise too_much_memory(self._limits) from None
        except Closed:
            how = self._how_it_ended()
            if how == _OUT_OF_TIME:
                raise too_long(self._limits) from None
            raise ReaderDied(f"the process that read it {how}") from None
        if answer.out_of_memory:
            self.kill()
            raise too_much_memory(self._limits)
        return answer

    def interrupt(self) -> None:
        """End the process, from any thread: a thread that waits for an answer gets `ReaderDied`."""
        self._process.kill()

    def kill(self) -> None:
        """End it at once."""
        self._link.close()
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process by closing its socket."""
        self._link.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.kill()

    def _how_it_ended(self) -> str:
        self._link.close()
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its end and hung"
        if code >= 0:
            return f"ended with code {code}"
        if code == -signal.SIGXCPU:
            return _OUT_OF_TIME
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            why = ": the machine ran out of memory, or somebody ended it" if name == "SIGKILL" else ""
            return f"{'was ended' if why else 'crashed'} ({name}){why}"
        return f"crashed (signal {-code})"


_OUT_OF_TIME = "used up its time"
_STARTS = 4
_idle: list[Child] = []
_lock = threading.Lock()


def borrow() -> Child:
    """A child that is idle, or a new one."""
    key = _key()
    with _lock:
        for place, child in enumerate(_idle):
            if child.key == key:
                return _idle.pop(place)
    return Child()


def ready_child(
    factory: Callable[..., Any],
    args: tuple[Any, ...],
    limits: Limits,
    threads: int = 1,
    begun: Child | None = None,
) -> Child:
    """A child that holds an object; one that is killed while it starts is replaced, a few times.

    Args:
        factory, args, limits, threads: see `Child.begin`.
        begun: a child for which `begin` was called with the same.

    Raises:
        ChildFailed: see `Child.wait_until_ready`.
    """
    for left in reversed(range(_STARTS)):
        child = begun or borrow()
        try:
            if begun is None:
                child.begin(factory, args, limits, threads)
            child.wait_until_ready()
            return child
        except ChildFailed as error:
            child.kill()
            begun = None
            if not left or not isinstance(error, ChildKilled):
                raise
    raise AssertionError("the last attempt returns or raises")


def give_back(child: Child) -> None:
    """Keep a child that works, without its object, for the next caller."""
    try:
        child.begin(dict, (), Limits())
        child.wait_until_ready()
    except ChildFailed:
        child.kill()
        return
    with _lock:
        if len(_idle) < _MOST_IDLE:
            _idle.append(child)
            return
    child.close()


def _key() -> tuple[Any, ...]:
    """What a child has from its start on; where this differs it cannot be used again.

    A forked process is another parent: its children are its own.
    """
    storage = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "FSSPEC_", "GOOGLE_"))}
    return os.getpid(), tuple(map(str, sys.path)), tuple(sorted(storage.items())), _standard_error()


def _standard_error() -> tuple[int, int]:
    """Where standard error leads now: a child keeps the one that it was started with."""
    try:
        found = os.fstat(2)
    except OSError:  # it is closed
        return 0, 0
    return found.st_dev, found.st_ino


@atexit.register
def _close_all() -> None:
    with _lock:
        mine = [child for child in _idle if child.key[0] == os.getpid()]
        _idle.clear()
    for child in mine:
        child.close()
