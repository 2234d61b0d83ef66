"""The child process: it builds one object and calls its methods, within limits, until its parent ends."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import resource
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from trackmill.pipeline.console.exit_codes import ExitCode, exit_code_of
from trackmill.pipeline.console.output import clean, logging_to_stderr, printable_streams
from trackmill.pipeline.isolation.limits import Limits
from trackmill.pipeline.isolation.wire import Closed, receive, send
from trackmill.pipeline.storage.credentials import error_text
from trackmill.pipeline.storage.secrets.signed_urls import adopt_signatures
from trackmill.schemas.errors import InputError, StorageError

_ORPHAN_CHECK_S = 2.0
_RESERVED_BYTES = 8 << 30
"""Address space that libraries and threads may reserve, beyond what is allocated."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Build an object and hold it; replaces the one before.

    Args:
        factory: gives the object; importable by its name.
        args: of `factory`.
        limits: of each call.
        threads: calls at once.
        environment, folder: the parent's own.
        signatures: of URLs that the arguments name, see `trackmill.pipeline.storage.secrets.signed_urls`.
    """

    factory: Any
    args: tuple[Any, ...]
    limits: Limits
    threads: int
    environment: dict[str, str]
    folder: str
    signatures: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """Call a method of the object; answered by an `Answer` of the same number. For `signatures` see `Begin`."""

    number: int
    method: str
    args: tuple[Any, ...]
    signatures: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call, or of a `Begin` (number -1).

    Args:
        number: of the call.
        value: what the method returned.
        raised: an error that says what is wrong with an input, or with storage.
        failed: class and text of any other error, as one line; "" if there was none.
        out_of_memory: it met the limit on memory, or the machine's.
    """

    number: int
    value: Any = None
    raised: Exception | None = None
    failed: str = ""
    out_of_memory: bool = False


def serve(descriptor: int) -> None:
    """Work until the parent closes the socket, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent decides
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _be_first_when_memory_runs_out()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    _silence_decoders()
    with (
        contextlib.suppress(Closed),
        printable_streams(),
        logging_to_stderr(),
        socket.socket(fileno=descriptor) as link,
    ):
        _Server(link).run()
    os._exit(0)  # whatever threads still do, nobody waits for it


class _Server:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._writing = threading.Lock()
        self._held: Any = None
        self._limits = Limits()
        self._threads: ThreadPoolExecutor | None = None
        self._at_once = 1

    def run(self) -> None:
        while True:
            message = receive(self._link)
            if isinstance(message, Begin):
                self._begin(message)
            elif self._threads is None:
                self._call(message)
            else:
                self._threads.submit(self._call, message)

    def _begin(self, message: Begin) -> None:
        os.environ.clear()
        os.environ.update(message.environment)
        adopt_signatures(message.signatures)
        with contextlib.suppress(OSError):
            os.chdir(message.folder)
        if self._threads is not None:
            self._threads.shutdown()
        close = getattr(self._held, "close", None)
        if close is not None:
            close()
        self._limits, self._at_once = message.limits, message.threads
        self._threads = ThreadPoolExecutor(message.threads) if message.threads > 1 else None
        _limit_memory(0)
        try:
            self._held = message.factory(*message.args)
            # Behind what the object needs at all, such as libraries: this is a limit on what it reads.
            _limit_memory(message.limits.memory_bytes)
            answer = Answer(-1)
        except Exception as error:
            answer = Answer(-1, failed=_said(error))
        self._answer(answer)

    def _call(self, message: Call) -> None:
        _limit_cpu(self._limits.call_seconds, self._at_once)
        adopt_signatures(message.signatures)
        try:
            answer = Answer(message.number, getattr(self._held, message.method)(*message.args))
            self._answer(answer)
        except MemoryError:
            _limit_memory(0)  # room to say so
            self._answer(Answer(message.number, out_of_memory=True))
            os._exit(0)  # what is left of the memory is in pieces
        except (InputError, OSError) as error:
            self._answer(Answer(message.number, raised=_portable(error)))
        except Exception as error:
            self._answer(Answer(message.number, failed=_said(error)))

    def _answer(self, answer: Answer) -> None:
        with self._writing:
            try:
                send(self._link, answer)
            except Closed:
                os._exit(0)


def _portable(error: Exception) -> Exception:
    """An error that says the same in the parent, where no traceback tells whose file it is about."""
    if isinstance(error, OSError) and not error.filename and exit_code_of(error) is ExitCode.STORAGE:
        return StorageError(error_text(error))
    try:
        again = pickle.loads(pickle.dumps(error))
        if type(again) is type(error) and str(again) == str(error):
            return error
    except Exception:  # a class whose arguments are not those that it keeps
        pass
    return StorageError(str(error)) if isinstance(error, OSError) else InputError(str(error))


def _said(error: Exception) -> str:
    return clean(f"{type(error).__name__}: {error}", 500)


def _limit_memory(allowance: int) -> None:
    """Cap what this process may allocate, by what it has now; 0 lifts the cap.

    What counts is data: libraries that are loaded late, and what they only reserve, do not. Address space has a wider
    cap, for kernels that do not count data.
    """
    for kind, line, slack in ((resource.RLIMIT_DATA, "VmData:", 0), (resource.RLIMIT_AS, "VmSize:", _RESERVED_BYTES)):
        hard = resource.getrlimit(kind)[1]
        soft = _bytes_now(line) + allowance + slack if allowance else hard
        if hard != resource.RLIM_INFINITY:
            soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (soft, hard))


def _bytes_now(line: str) -> int:
    """What this process has by now; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(each.split()[1]) * 1024 for each in status if each.startswith(line))
    except (OSError, StopIteration, ValueError):
        return 0


def _limit_cpu(seconds: float, threads: int) -> None:
    """End this process some time after the parent should have, for the case that there is no parent any more."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + (1.5 * seconds + 10) * threads) if seconds else hard
    if hard != resource.RLIM_INFINITY and soft != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    with contextlib.suppress(OSError, ValueError, OverflowError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _be_first_when_memory_runs_out() -> None:
    """Let the kernel, when the whole machine has no memory left, end this process and not one that holds a model."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as handle:
        handle.write("1000")


def _silence_decoders() -> None:
    """Leave standard error to Python: what decoders say in C may hold anything, and exceptions say what matters."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    sys.stdout = sys.stderr
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _end_with_parent(parent: int) -> None:
    # A closed socket says the same, unless another process of the parent's still holds a copy of it.
    while os.getppid() == parent:
        time.sleep(_ORPHAN_CHECK_S)
    os._exit(0)
