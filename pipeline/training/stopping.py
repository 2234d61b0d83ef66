"""How a run is asked to stop: signals of this process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from trackmill.pipeline.console.signals import STOP_SIGNALS


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turns SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C into an answer to "should I stop?"; a second one stops at once."""
    stopping = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    numbers = [number for number in (*STOP_SIGNALS, signal.SIGINT) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stopping.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
