"""The step watchdog: says which rank hangs, in which stage and where in the code, and ends a process that stays so.

A hang has no error: one rank waits for data, the others wait for it in a collective. So every rank says what it is
doing, a thread of each looks at the clock, and whoever is over time speaks up and leaves a note under `OUTPUT/hangs`;
from the notes of all ranks each of them tells who is behind.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import IO

import orjson
from pydantic import Field

from trackmill.pipeline.console.words import duration
from trackmill.pipeline.storage.credentials import scrub
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import canonical, join
from trackmill.schemas.config import Settings

HANG_EXIT = 75
"""Exit code of a process that the watchdog ended: EX_TEMPFAIL of sysexits.h, worth another try."""
FIRST_STEP = 3.0
"""How much longer the first step may take: kernels are compiled, loader workers start."""
_SLACK_S = 30.0
"""On a busy machine the thread may come late; only after so much more does `faulthandler` step in."""

HINTS = {
    "waiting for data": "the loader's workers or the storage are behind",
    "backward": "gradients are averaged over ranks here: another rank may be the one that hangs",
    "step": "with ZeRO parameters are gathered over ranks here: another rank may be the one that hangs",
    "telemetry": "numbers are averaged over ranks here: another rank may be the one that hangs",
    "saving the checkpoint": "all ranks meet here and rank 0 writes: another rank or the storage may be behind",
    "loading the checkpoint": "the storage may be behind",
    "evaluation": "rank 0 evaluates and the others wait for it",
}
"""What to think of where a stage of this name hangs."""


class WatchdogSettings(Settings):
    """Section `watchdog`: none of it changes what is learnt."""

    timeout_s: float = Field(
        600, ge=0, description="Seconds that one stage of a step may last before it counts as hanging; 0: no watchdog."
    )
    abort: bool = Field(
        True, description="End the process (exit code 75) when it hangs as long again, so that it is started anew."
    )


@dataclass(frozen=True, slots=True)
class Note:
    """What one rank was doing when it ran out of time; `since` and `said` in seconds of Unix time."""

    rank: int
    stage: str
    step: int
    since: float
    said: float
    host: str
    pid: int

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"rank {self.rank} is in {self.stage!r} since {since}, at step {self.step} ({self.host}, pid {self.pid})"


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    step: int
    began: float
    limit_s: float


class Watchdog:
    """Watches one rank while the context is open.

    The thread that watches needs the interpreter for a moment, which it gets while the main thread sleeps in C code
    (a collective, a CUDA synchronisation, a read). Code that hangs without giving up the interpreter lock stops it
    too; for that case `faulthandler` keeps a timer in C, wound up anew by the thread. It prints the stacks alone,
    without rank and stage, half a minute after twice the limit, and with `abort` ends the process with code 1.

    Args:
        settings: limits.
        rank: of this process.
        output: root of the run; `hangs/rank-N.txt` under it gets what is said, after what earlier hangs left there.
        world: number of ranks.
    """

    def __init__(self, settings: WatchdogSettings, rank: int, output: str, *, world: int = 1) -> None:
        self._settings, self._rank, self._world = settings, rank, world
        self._folder = join(canonical(output), "hangs")
        self._stage = _Stage("start", 0, time.monotonic(), FIRST_STEP * settings.timeout_s)
        self._first: int | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        if self._settings.timeout_s:
            self._over.clear()
            self.stage("start", 0)
            self._first = None
            self._wind_up(self._stage)
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread:
            self._over.set()
            self._thread.join()
            self._thread = None
            faulthandler.cancel_dump_traceback_later()

    def stage(self, name: str, step: int, *, patience: float = 1.0) -> None:
        """This rank begins stage `name` of `step`, and the stage before has ended. Costs about a microsecond.

        Args:
            name: as in "saving the checkpoint"; `HINTS` knows more about some.
            step: that the loop is at; while it is the first one seen, the limit is three times as long.
            patience: multiplies the limit, for stages that may rightly take long, e.g. an evaluation.
        """
        if self._first is None:
            self._first = step
        factor = patience * (FIRST_STEP if step == self._first else 1.0)
        self._stage = _Stage(name, step, time.monotonic(), factor * self._settings.timeout_s)

    def _watch(self) -> None:
        timeout_s = self._settings.timeout_s
        pause = min(1.0, timeout_s / 10)
        said: _Stage | None = None
        said_at = 0.0
        verdict = False
        while True:
            stage, now = self._stage, time.monotonic()
            self._wind_up(stage)
            if said is not None and stage is not said:
                _tell(f"watchdog: rank {self._rank} goes on, {said.name!r} took {duration(stage.began - said.began)}")
                said = None
            if said is None and now - stage.began > stage.limit_s:
                said, said_at, verdict = stage, now, False
                self._speak(stage)
            elif said is not None and not verdict and now - said_at > min(10.0, timeout_s / 2):
                # By now every other rank that hangs has left its note as well.
                verdict = True
                _apart(self._say_who_is_behind)
            elif said is not None and self._settings.abort and now - said_at > stage.limit_s:
                _tell(f"watchdog: rank {self._rank} still hangs in {stage.name!r}: ending it with code {HANG_EXIT}")
                os._exit(HANG_EXIT)
            if self._over.wait(pause):
                return

    def _wind_up(self, stage: _Stage) -> None:
        stream = _stream_with_a_number()
        if stream is not None:
            seconds = 2 * stage.limit_s + _SLACK_S
            faulthandler.dump_traceback_later(seconds, exit=self._settings.abort, file=stream)

    def _speak(self, stage: _Stage) -> None:
        lasted = time.monotonic() - stage.began
        now = time.time()
        note = Note(self._rank, stage.name, stage.step, now - lasted, now, socket.gethostname(), os.getpid())
        hint = f"\n  {HINTS[stage.name]}" if stage.name in HINTS else ""
        ends = f"; it is ended in {duration(stage.limit_s)} if it stays so" if self._settings.abort else ""
        text = f"watchdog: {note}, of {self._world} ranks; {duration(lasted)} by now{ends}{hint}\n{stacks()}"
        _tell(text)
        _apart(lambda: self._leave(note, text))

    def _leave(self, note: Note, text: str) -> None:
        publish_bytes(join(self._folder, f"rank-{self._rank}.json"), orjson.dumps(asdict(note)))
        self._append(text)

    def _append(self, text: str) -> None:
        url = join(self._folder, f"rank-{self._rank}.txt")
        earlier = read_bytes(url) if exists(url) else b""
        publish_bytes(url, earlier + scrub(text).encode() + b"\n")

    def _say_who_is_behind(self) -> None:
        if self._world == 1:
            return
        text = f"watchdog: {who_is_behind(self._notes(), self._world)}"
        _tell(text)
        self._append(text)

    def _notes(self) -> list[Note]:
        """Notes of this hang; those of earlier ones are too old."""
        oldest = time.time() - 2 * FIRST_STEP * self._settings.timeout_s - 60
        notes = []
        for rank in range(self._world):
            with contextlib.suppress(OSError, ValueError, TypeError):
                note = Note(**orjson.loads(read_bytes(join(self._folder, f"rank-{rank}.json"))))
                if note.said >= oldest:
                    notes.append(note)
        return notes


def who_is_behind(notes: list[Note], world: int) -> str:
    """One line from the notes of a hang: the rank that entered its stage of the earliest step first is behind.

    Args:
        notes: of the ranks that spoke up.
        world: number of ranks; one without a note is dead, stuck without giving up the interpreter, or fine.
    """
    silent = sorted(set(range(world)) - {note.rank for note in notes})
    parts = []
    if silent:
        names = ", ".join(map(str, silent))
        parts.append(
            f"nothing was heard from rank {names}: its process is gone, has just begun to wait or does not give up "
            "the interpreter; look there first"
        )
    places = {(note.step, note.stage) for note in notes}
    if len(places) > 1:
        parts.append(f"furthest behind: {min(notes, key=lambda note: (note.step, note.since))}")
    elif notes:
        parts.append(f"{len(notes)} of {world} ranks hang at the same place: {notes[0].stage!r}, step {notes[0].step}")
    return "; ".join(parts)


def stacks() -> str:
    """The Python stacks of all threads of this process, innermost call first; reads no source files."""
    names = "\n".join(f"  thread 0x{thread.ident or 0:016x} is {thread.name!r}" for thread in threading.enumerate())
    try:
        with tempfile.TemporaryFile() as scratch:
            faulthandler.dump_traceback(file=scratch, all_threads=True)
            scratch.seek(0)
            return f"{names}\n{scratch.read().decode(errors='replace')}"
    except OSError as error:
        return f"{names}\n  no stacks: {error}"


def _apart(action: Callable[[], None]) -> None:
    """In a thread of its own: storage that hangs must not keep the watchdog from ending the process."""

    def run() -> None:
        try:
            action()
        except Exception as error:
            _tell(f"watchdog: no note could be left under the output: {type(error).__name__}: {error}")

    threading.Thread(target=run, name="watchdog note", daemon=True).start()


def _tell(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads stderr any more
        print(scrub(text), file=sys.stderr, flush=True)


def _stream_with_a_number() -> IO[str] | None:
    """stderr as faulthandler needs it, with a file descriptor."""
    for stream in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            if stream is not None and stream.fileno() >= 0:
                return stream
    return None
