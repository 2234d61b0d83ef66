"""One writer for one output: a small file says which process writes there, and beats while that process lives.

A second process is refused, with the name of the first. A dead owner's lock ends: at once where the process can be
looked up, because it ran on this machine; elsewhere after `EXPIRES_S` without a beat. No clock is compared with
another machine's: who comes second watches whether the file changes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import filesystem, is_local, join, read_bytes
from trackmill.pipeline.storage.processes import is_alive, machine, started_at
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.pipeline.storage.scratch import check_writable
from trackmill.schemas.errors import InputError, JobError, StorageError

log = logging.getLogger("trackmill")

NAME = ".held-by.json"
"""Of the file, in the output's root; hidden, so that no listing takes it for data."""

BEAT_S = 15.0
EXPIRES_S = 60.0
_SETTLE_S = 1.0
"""An object store has no "create if absent" that all of them know: who wrote looks once more after so long."""


class OutputLocked(JobError):
    """Another process writes to this output; the text says which."""


class LockLost(JobError):
    """Another process has taken the output over; this one must not write there any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who holds an output.

    Args:
        job: name of the job.
        host, pid: where it runs, for people.
        machine: what tells machines and their process namespaces apart, see `processes.machine`.
        started: when the process began, see `processes.started_at`: another one may have its number later.
        since: local time at which it took the output, for people.
        token: of this lock alone.
    """

    job: str
    host: str
    pid: int
    machine: str
    started: str
    since: str
    token: str

    def __str__(self) -> str:
        return f"job {self.job}, process {self.pid} on {self.host}, since {self.since}"


class OutputLock:
    """The lock of this process on an output; see `locked`.

    Args:
        url: of the file.
        owner: this process.
        on_lost: called from a thread, once, when somebody else has taken the output over.
    """

    def __init__(self, url: str, owner: Owner, on_lost: Callable[[LockLost], None] | None = None) -> None:
        self._url = url
        self._owner = owner
        self._on_lost = on_lost
        self.folders: list[str] = []
        """Made for it, the deepest first: they go with it where nothing else was written to them."""
        self._beats = 0
        self._ended = threading.Event()
        self._lost: LockLost | None = None
        self._thread = threading.Thread(target=self._beat_on, name="output-lock", daemon=True)

    def check(self) -> None:
        """Raise `LockLost` if the output is somebody else's by now."""
        if self._lost is not None:
            raise self._lost

    def begin(self) -> None:
        """Beat from now on."""
        self._thread.start()

    def end(self) -> None:
        """Give the output back."""
        self._ended.set()
        self._thread.join()
        if self._lost is None:
            with contextlib.suppress(OSError):  # what was made is whole; the lock expires by itself
                remove(self._url)
                for folder in self.folders:
                    os.rmdir(folder)

    def document(self) -> bytes:
        """What the file holds now."""
        values = {name: getattr(self._owner, name) for name in Owner.__slots__}
        return orjson.dumps({**values, "beats": self._beats}, option=orjson.OPT_INDENT_2)

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                owner = _owner(_read(self._url))
                if owner is not None and owner.token != self._owner.token:
                    self._lost = LockLost(
                        f"{redact(self._url)}: {owner} has taken the output over; this process stops writing to it"
                    )
                    if self._on_lost is not None:
                        self._on_lost(self._lost)
                    return
                self._beats += 1
                publish_bytes(self._url, self.document())
            except OSError as error:
                log.warning("%s: the lock could not be renewed: %s", redact(self._url), error)


@contextlib.contextmanager
def locked(output: str, job: str, on_lost: Callable[[LockLost], None] | None = None) -> Iterator[OutputLock]:
    """Lock an output as long as the block runs.

    Args:
        output: root URL of the output.
        job: name of the job that writes there.
        on_lost: see `OutputLock`; without it, call `OutputLock.check` before each write that must not come from two
            processes.

    Raises:
        OutputLocked: another process holds it.
        InputError: it is a file, or on a web server.
        OSError: it cannot be written to.
    """
    check_writable(output)
    url = join(output, NAME)
    owner = Owner(
        job=job,
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=machine(),
        started=started_at(os.getpid()),
        since=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        token=os.urandom(8).hex(),
    )
    lock = OutputLock(url, owner, on_lost)
    found = _read(url)
    if found is not None:
        _wait_for_the_dead(url, found)
        log.warning("%s: its owner is dead (%s); this process goes on there", redact(output), _owner(found) or "?")
    _take(url, lock, found)
    lock.begin()
    try:
        yield lock
    finally:
        lock.end()


def holder(output: str) -> Owner | None:
    """Who holds an output, as its file says, alive or not; None where nobody does or it cannot be read.

    Raises:
        OSError: storage failed.
    """
    return _owner(_read(join(output, NAME)))


def _wait_for_the_dead(url: str, found: bytes) -> None:
    """Return when the owner of a lock is dead; raise `OutputLocked` when it lives."""
    owner = _owner(found)
    if owner is not None and owner.machine == machine():
        if is_alive(owner.pid, owner.started):
            raise OutputLocked(_refusal(url, owner))
        return
    log.warning(
        "%s is held by another machine (%s): looking for %.0f s whether that is alive",
        redact(url),
        owner or "its name cannot be read",
        EXPIRES_S,
    )
    until = time.monotonic() + EXPIRES_S
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        now = _read(url)
        if now is None:
            return
        if now != found:
            raise OutputLocked(_refusal(url, _owner(now)))


def _take(url: str, lock: OutputLock, expired: bytes | None) -> None:
    if not is_local(url):
        publish_bytes(url, lock.document())
        time.sleep(_SETTLE_S)
        now = _read(url)
        if now is not None and now != lock.document():
            raise OutputLocked(_refusal(url, _owner(now)))
        return
    path = filesystem(url)[1]
    if expired is not None and _read(url) == expired:
        remove(url)
    try:
        lock.folders = _make_folders(os.path.dirname(path))
        with open(path, "xb", buffering=0) as handle:
            try:
                handle.write(lock.document())
                os.fsync(handle.fileno())
            except OSError:
                os.unlink(path)  # of a full disk: an empty one would block the next process until it expires
                raise
    except FileExistsError as error:
        if (found := _read(url)) is not None:
            raise OutputLocked(_refusal(url, _owner(found))) from None
        raise InputError(f"{error.filename} is a file, but the output is a folder; give another --output") from None
    except NotADirectoryError as error:
        raise InputError(f"{error.filename}: part of this path is a file; give another --output") from None
    except OSError as error:
        for folder in lock.folders:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        raise StorageError(
            f"{os.path.dirname(path)}: the output cannot be written to ({error.strerror}); give another --output"
        ) from error


def _make_folders(path: str) -> list[str]:
    """Make a folder and those above it; returns those that were not there, the deepest first."""
    missing = []
    above = path
    while not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    os.makedirs(path, exist_ok=True)
    return missing


def _refusal(url: str, owner: Owner | None) -> str:
    root = redact(url.removesuffix(f"/{NAME}"))
    return (
        f"{root} is being written to by another process ({owner or 'its name cannot be read'}): let it end, or stop "
        f"it, or give another --output; the lock of a dead process ends by itself within {EXPIRES_S:.0f} s"
    )


def _read(url: str) -> bytes | None:
    try:
        return read_bytes(url, max_bytes=64 * 1024)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _owner(document: bytes | None) -> Owner | None:
    """The owner that a file names; None where it names none."""
    try:
        values: dict[str, Any] = orjson.loads(document or b"")
        owner = Owner(**{name: values[name] for name in Owner.__slots__})
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    strings = ("job", "host", "machine", "started", "since", "token")
    return owner if type(owner.pid) is int and all(type(getattr(owner, name)) is str for name in strings) else None
