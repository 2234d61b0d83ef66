"""SIGTERM and SIGUSR1, as schedulers send them, and SIGHUP, of a closed terminal, stop a job as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Signals that stop a job as Ctrl-C does. SIGUSR1 is what Slurm is mostly asked to send before time is up."""


def stop_on_sigterm() -> None:
    """Make `STOP_SIGNALS` raise `KeyboardInterrupt`; once more after a library has put handlers of its own there."""
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` has SIGHUP ignored, and means it
                signal.signal(number, _interrupt)


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Within, `STOP_SIGNALS` raise `KeyboardInterrupt`; afterwards they do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    stop_on_sigterm()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
