"""One writer for one output: a small file says which process writes there, and beats while that process lives.

A second process is refused, with the name of the first. A dead owner's lock ends: at once where the process can be
looked up, because it ran on this machine; elsewhere after `EXPIRES_S` without a beat. No clock is compared with
another machine's: who comes second watches whether the file changes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import orjson

from trackmill.pipeline.storage.create import create_bytes
from trackmill.pipeline.storage.credentials import protocol_of, redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.owner import MAX_OWNER_BYTES, Owner, read_owner, this_process
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.pipeline.storage.scratch import check_writable
from trackmill.pipeline.storage.urls import filesystem, is_local, join
from trackmill.schemas.errors import InputError, JobError, StorageError

log = logging.getLogger("trackmill")

NAME = ".held-by.json"
"""Of the file, in the output's root; hidden, so that no listing takes it for data."""

BEAT_S = 15.0
EXPIRES_S = 60.0
_TURN = ": "
"""Between the name of a job and what it has its turn for, see `in_turn`."""

_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between two looks whether it is one's turn; the last one again and again."""


class OutputLocked(JobError):
    """Another process writes to this output; the text says which.

    Args:
        text: for people.
        owner: the other process; None where the lock names none.
    """

    def __init__(self, text: str, owner: Owner | None = None) -> None:
        super().__init__(text)
        self.owner = owner


class LockLost(JobError):
    """Another process has taken the output over; this one must not write there any more."""


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
        self.inherited = False
        """Whether it was taken from a dead process, which may have left its work half done."""
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
        return orjson.dumps({**self._owner.values(), "beats": self._beats}, option=orjson.OPT_INDENT_2)

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                owner = read_owner(_read(self._url))
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
        InputError: it is a file, on a web server, or on Hugging Face's Hub.
        OSError: it cannot be written to.
    """
    check_writable(output)
    if protocol_of(output) == "hf":
        raise InputError(
            f"{redact(output)}: on the Hub each file would be a commit of its own: write to a folder, and push that: "
            f"trackmill push FOLDER {redact(output)}"
        )
    url = join(output, NAME)
    lock = OutputLock(url, this_process(job), on_lost)
    found = _read(url)
    if found is not None and _waited_for_the_dead(url, found):
        lock.inherited = True
        log.warning("%s: its owner is dead (%s); this process goes on there", redact(output), read_owner(found) or "?")
    _take(url, lock, found)
    lock.begin()
    try:
        yield lock
    finally:
        lock.end()


@contextlib.contextmanager
def in_turn(
    output: str, job: str, turn: str, wait: Callable[[Owner | None], None] = lambda owner: None
) -> Iterator[OutputLock]:
    """As `locked`, for a moment's work of a job that several processes do together: it waits for the others of its job.

    Args:
        output: root URL of the output.
        job: name of the job.
        turn: what is done in it, such as `planning`; others who wait are told.
        wait: called after each pause, with who had its turn before it. It may raise in order to wait no more.

    Raises:
        OutputLocked: another job, or an older version of this one, holds the output.
        Exception: see `locked`.
    """
    told = ""
    for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
        held = locked(output, f"{job}{_TURN}{turn}")
        try:
            lock = held.__enter__()
        except OutputLocked as error:
            if error.owner is not None and not error.owner.job.startswith(f"{job}{_TURN}"):
                raise
            if error.owner is not None and told != error.owner.token:
                told = error.owner.token
                log.info("waiting for another process, which has its turn (%s)", error.owner)
            time.sleep(pause_s * (0.5 + random.random()))
            wait(error.owner)
            continue
        with contextlib.ExitStack() as stack:
            stack.push(held)
            yield lock
        return


def holder(output: str) -> Owner | None:
    """Who holds an output, as its lock says; None where nobody does. It may have died since."""
    return read_owner(_read(join(output, NAME)))


def _waited_for_the_dead(url: str, found: bytes) -> bool:
    """True once the owner of a lock is dead, False once it has given it back; raises `OutputLocked` when it lives."""
    owner = read_owner(found)
    here = owner.alive_here if owner is not None else None
    if here:
        raise _locked(url, found)
    if here is False:
        return True
    say = log.info if owner is not None and _TURN in owner.job else log.warning
    say(
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
            return False
        if now != found:
            raise _locked(url, now)
    return True


def _take(url: str, lock: OutputLock, expired: bytes | None) -> None:
    if not is_local(url):
        if expired is not None and _read(url) == expired:
            remove(url)
        if not create_bytes(url, lock.document()):
            raise _locked(url, _read(url) or b"")
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
            raise _locked(url, found) from None
        if error.filename == path:  # it was given back at this moment
            return _take(url, lock, None)
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


def _locked(url: str, document: bytes) -> OutputLocked:
    owner = read_owner(document)
    return OutputLocked(_refusal(url, owner), owner)


def _refusal(url: str, owner: Owner | None) -> str:
    root = redact(url.removesuffix(f"/{NAME}"))
    return (
        f"{root} is being written to by another process ({owner or 'its name cannot be read'}): let it end, or stop "
        f"it, or give another --output; the lock of a dead process ends by itself within {EXPIRES_S:.0f} s"
    )


def _read(url: str) -> bytes | None:
    try:
        return read_bytes(url, max_bytes=MAX_OWNER_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
