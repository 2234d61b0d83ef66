"""How a run is asked to stop: by signals of this process, by other ranks, by the driver; and how long ago that was.

A step is finished and saved if there is time for it. The only wait that is broken off is that for data, and only of a
rank that is alone: others would wait in a collective for one that had gone.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from trackmill.pipeline.console.signals import STOP_SIGNALS

NOT_ASKED = -1.0


class StopWaiting(BaseException):
    """Raised by a signal where a rank that is alone waits for data. No step is lost: none had begun."""


class Stopping:
    """Whether this process was asked to stop; call it.

    Args:
        clock: seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._waits = False

    def __call__(self) -> bool:
        """Whether it was."""
        return self._since is not None

    def ask(self, ago_s: float = 0.0) -> None:
        """Ask it to stop, as somebody did so many seconds ago; only the first time counts."""
        if self._since is None:
            self._since = self._clock() - ago_s

    def asked_s(self) -> float:
        """Seconds since it was asked; `NOT_ASKED` where it was not."""
        return NOT_ASKED if self._since is None else self._clock() - self._since

    @contextlib.contextmanager
    def may_break_off(self) -> Iterator[None]:
        """Within, a signal raises `StopWaiting`; as it does where one came before."""
        self._waits = True
        try:
            if self():
                raise StopWaiting
            yield
        finally:
            self._waits = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """A handler: the first signal asks, a second one stops at once."""
        if self():
            raise KeyboardInterrupt
        self.ask()
        if self._waits:
            raise StopWaiting


def seconds_asked(should_stop: Callable[[], bool]) -> float:
    """How long ago somebody asked to stop; 0 where that is not known, `NOT_ASKED` where nobody did."""
    if isinstance(should_stop, Stopping):
        return should_stop.asked_s()
    return 0.0 if should_stop() else NOT_ASKED


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stopping]:
    """Turns SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C into an answer to "should I stop?"; a second one stops at once."""
    stopping = Stopping()
    numbers = [number for number in (*STOP_SIGNALS, signal.SIGINT) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stopping.on_signal) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
