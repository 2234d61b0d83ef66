"""How far a run is: a live bar on a terminal, a plain line per interval in a log, a warning when nothing moves."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from trackmill.pipeline.console.output import install_printable_streams, raw_stream
from trackmill.pipeline.console.words import duration
from trackmill.pipeline.workers.task import Status

log = logging.getLogger("trackmill")


class WorkProgress:
    """Counts what is done and tells it.

    Args:
        total_items, total_frames: of the whole data set.
        done_items, done_frames, quarantined: what earlier runs did.
        interval_s: seconds between two lines in a log.
        watchdog_s: seconds without a finished item after which the slowest worker's stage is named.
        stream: where to; a bar if it is a terminal.
        clock: for tests.
    """

    doing = "working"
    """Begins the line."""

    things = "items"
    """What items are called."""

    def __init__(
        self,
        total_items: int,
        total_frames: int,
        done_items: int = 0,
        done_frames: int = 0,
        quarantined: int = 0,
        interval_s: float = 10.0,
        watchdog_s: float = 120.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_items, self._total_frames = total_items, total_frames
        self._earlier_items, self._earlier_frames = done_items, done_frames
        self._items, self._frames, self._quarantined = done_items, done_frames, quarantined
        self._interval_s, self._watchdog_s = interval_s, watchdog_s
        self._stream = raw_stream(stream or sys.stderr)
        self._clock = clock
        self._begin = self._last_line = self._last_advance = clock()
        self._seen = (done_items, 0)
        self._states: dict[str, Status] = {}
        self._warned = self._started = False
        self._bar: Progress | None = None
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn(f"[bold]{self.doing}[/bold]"),
                BarColumn(),
                TextColumn("{task.description}"),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task(self.line(), total=max(total_frames, 1), completed=done_frames)
            self._bar.start()
            install_printable_streams()  # the bar has put streams of its own there, which print above it

    def add(self, unit: int, items: int, frames: int, quarantined: int) -> None:
        """A unit is complete, with so many items, frames and quarantined items."""
        self._items += items
        self._frames += frames
        self._quarantined += quarantined
        # A new dictionary: another thread may be counting over the old one.
        left = {name: _without(state, unit) for name, state in self._states.items()}
        self._states = {name: state for name, state in left.items() if state is not None}
        self._tell()

    def grow(self, items: int, frames: int) -> None:
        """More is done here than was to be expected: a part helps others."""
        self._total_items += items
        self._total_frames += frames

    def tick(self, states: dict[str, Status]) -> None:
        """Called about twice a second with what every worker is doing."""
        if not self._started and any(state.unit >= 0 for state in states.values()):
            # Rates count from the first worker at work: starting a cluster takes its time, but only once.
            self._started, self._begin = True, self._clock()
        self._states = states
        self._tell()
        self._watch()

    def line(self) -> str:
        """`120/400 items (31%), 280 left, 4.2 items/s, 9.7 frames/s, ETA 1 min 10 s, 3 quarantined`."""
        items, frames, quarantined = self._now()
        elapsed = max(self._clock() - self._begin, 1e-6)
        new_frames = frames - self._earlier_frames
        share = frames / self._total_frames if self._total_frames else 1.0
        parts = [f"{items}/{self._total_items} {self.things} ({share:.0%})", f"{self._total_items - items} left"]
        if new_frames > 0:
            rate = new_frames / elapsed
            parts += [f"{(items - self._earlier_items) / elapsed:.1f} {self.things}/s", f"{rate:.1f} frames/s"]
            parts.append(f"ETA {duration((self._total_frames - frames) / rate)}")
        else:
            parts.append("starting")
        parts.append(f"{quarantined} quarantined")
        return ", ".join(parts)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._refresh_bar()
            self._bar.stop()
            self._bar = None

    def _now(self) -> tuple[int, int, int]:
        """Items, frames and quarantined items, those inside unfinished units included."""
        running = [state.counts() for state in self._states.values()]
        return (
            self._items + sum(counts.items for counts in running),
            self._frames + sum(counts.frames for counts in running),
            self._quarantined + sum(counts.quarantined for counts in running),
        )

    def _tell(self) -> None:
        if self._bar is not None:
            self._refresh_bar()
        elif self._clock() - self._last_line >= self._interval_s:
            self._last_line = self._clock()
            print(f"{self.doing}: {self.line()}", file=self._stream, flush=True)

    def _refresh_bar(self) -> None:
        assert self._bar is not None
        self._bar.update(self._task, completed=self._now()[1], description=self.line())

    def _watch(self) -> None:
        items, frames, _ = self._now()
        if (items, frames) != self._seen:
            self._seen, self._warned, self._last_advance = (items, frames), False, self._clock()
            return
        silent = self._clock() - self._last_advance
        if silent < self._watchdog_s or self._warned:
            return
        self._warned = True
        busy = sorted(self._states.items(), key=lambda entry: entry[1].since)
        if not busy:
            log.warning("no %s was finished for %s: no worker has started yet", self.things[:-1], duration(silent))
            return
        name, state = busy[0]
        where = f" {state.source_id}" if state.source_id else ""
        thing = self.things[:-1]
        log.warning("no %s was finished for %s: worker %s is %s%s", thing, duration(silent), name, state.stage, where)


def _without(state: Status, unit: int) -> Status | None:
    if state.unit == unit or unit in state.publishing:
        return state.only({state.unit, *state.publishing} - {unit})
    return state
