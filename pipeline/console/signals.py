"""SIGTERM, as schedulers send it, stops a job as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


def stop_on_sigterm() -> None:
    """Make SIGTERM raise `KeyboardInterrupt`; once more after a library has put a handler of its own there."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Within, SIGTERM raises `KeyboardInterrupt`; afterwards it does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    stop_on_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
