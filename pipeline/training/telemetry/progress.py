"""Progress of training for people: one rewritten line on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

from trackmill.pipeline.console.output import clean, raw_stream
from trackmill.pipeline.console.words import duration

_WINDOW_S = 120.0
"""Rates are taken over the last two minutes: long enough to be calm, short enough to notice a change."""


class TrainingProgress:
    """Tells how far a run is.

    Args:
        total_steps: steps of the whole run.
        start_step: steps that earlier runs did.
        samples_per_step: over all ranks together.
        interval_s: least seconds between two lines in a log; on a terminal half a second.
        stream: where to.
        clock: for tests.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int,
        samples_per_step: int,
        interval_s: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._step, self._samples = total_steps, start_step, samples_per_step
        self._stream, self._clock = raw_stream(stream or sys.stderr), clock
        self._rewrites = self._stream.isatty()
        self._interval_s = 0.5 if self._rewrites else interval_s
        self._last_line = -float("inf")
        self._seen: deque[tuple[float, int]] = deque([(clock(), start_step)])
        self._first = True
        self._row: Mapping[str, float] = {}
        self._open = False

    def row(self, row: Mapping[str, float]) -> None:
        """Numbers of the newest step."""
        self._row = row
        self.tick(int(row["step"]))

    def tick(self, step: int) -> None:
        """`step` steps are done."""
        now = self._clock()
        if step != self._step:
            if self._first:
                # The first step compiles and fills queues; rates count from its end.
                self._first = False
                self._seen.clear()
            self._step = step
            self._seen.append((now, step))
            while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
                self._seen.popleft()
        if now - self._last_line >= self._interval_s:
            self._tell(now)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._open:
            self._stream.write("\r\033[K")
            self._open = False
        self._stream.write(f"{clean(text)}\n")
        self._stream.flush()

    def close(self) -> None:
        """A last line, and the end of the rewritten one."""
        self._tell(self._clock())
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False

    def line(self) -> str:
        """`step 120/1,000 (12%), loss 3.214, 85.1 samples/s, 3% waiting for data, ETA 3 min 20 s`."""
        share = self._step / self._total if self._total else 1.0
        parts = [f"step {self._step:,}/{self._total:,} ({share:.0%})"]
        if isinstance(self._row.get("loss"), (int, float)):
            parts.append(f"loss {self._row['loss']:.4g}")
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        rate = (last - first) / max(end - begin, 1e-9)
        if last > first:
            parts.append(f"{rate * self._samples:,.1f} samples/s")
        if isinstance(self._row.get("data_wait"), (int, float)):
            parts.append(f"{self._row['data_wait']:.0%} waiting for data")
        if last > first and self._step < self._total:
            parts.append(f"ETA {duration((self._total - self._step) / rate)}")
        return ", ".join(parts)

    def _tell(self, now: float) -> None:
        self._last_line = now
        if self._rewrites:
            self._stream.write(f"\r\033[K{self.line()}")
            self._open = True
        else:
            self._stream.write(f"train: {self.line()}\n")
        self._stream.flush()
