"""A line on stderr for work that takes more than a few seconds: how much is done, how fast, how long to go."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from trackmill.pipeline.console.output import raw_stream


class ProgressLine:
    """Counts things and says so at most once in `interval_s`; silent when the work ends before that.

    Args:
        total: things in all; 0 where that is not known.
        what: begins the line, e.g. `verified`.
        things: what is counted.
        interval_s: seconds between two lines.
        stream: where they go. On a terminal one line is rewritten; elsewhere each is its own.
    """

    def __init__(
        self,
        total: int,
        what: str,
        interval_s: float = 3.0,
        stream: TextIO | None = None,
        things: str = "samples",
    ) -> None:
        self.done = 0
        self._total, self._what, self._things, self._interval_s = total, what, things, interval_s
        self._stream = raw_stream(stream or sys.stderr)
        self._begin = self._last = time.monotonic()
        self._wrote = False

    def __call__(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        now = time.monotonic()
        if now - self._last >= self._interval_s:
            self._last = now
            self._write(self._line(now - self._begin))

    def close(self) -> None:
        """End the rewritten line."""
        if self._wrote and self._stream.isatty():
            self._stream.write("\n")

    def _line(self, elapsed_s: float) -> str:
        rate = self.done / max(elapsed_s, 1e-9)
        text = f"{self._what} {self.done:,}"
        if self._total:
            left_s = max(0, self._total - self.done) / max(rate, 1e-9)
            text += f" of {self._total:,} {self._things}, {rate_text(rate)}, {left_s:,.0f} s left"
        else:
            text += f" {self._things}, {rate_text(rate)}"
        return text

    def _write(self, line: str) -> None:
        self._wrote = True
        self._stream.write(f"\r\033[K{line}" if self._stream.isatty() else f"{line}\n")
        self._stream.flush()


def rate_text(per_second: float) -> str:
    """Such as `310/s` or `0.22/s`: two digits at least, so that slow work has a rate, too."""
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.2g}/s"
