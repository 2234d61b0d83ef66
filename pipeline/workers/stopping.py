"""A job that is asked to stop finishes what it can in the seconds that it has, and then stops as it always did.

SIGTERM comes when a machine is wanted by somebody else, and SIGKILL half a minute later: long enough to finish a unit
that is nearly done, to publish one that is done, and to drop the others in good order. Whoever signals twice does not
want to wait.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from trackmill.pipeline.console.signals import STOP_SIGNALS
from trackmill.pipeline.console.words import counted

log = logging.getLogger("trackmill")

_PUBLISHING = 0.2
"""Share of the time that is left for publishing, after the last item."""


def seconds_to_work(grace_s: float) -> float:
    """Of the seconds that there are, those in which items may still be worked on; the others are for publishing."""
    return grace_s * (1 - _PUBLISHING)


class Stopping:
    """Within `with`, in the main thread, Ctrl-C and `STOP_SIGNALS` are requests; a second one raises at once.

    Args:
        grace_s: seconds that there are after the first; 0: it raises at once, too.
        clock: seconds; for tests.
    """

    def __init__(self, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._deadline: float | None = None
        self._begun = False
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether the job is to stop."""
        return self._deadline is not None

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return self._deadline is not None and self._clock() >= self._deadline

    @property
    def seconds_to_work(self) -> float:
        """See the function of this name."""
        return seconds_to_work(self._grace_s)

    def begins(self) -> bool:
        """Whether the job is to stop, and was not yet told so by this."""
        if self._begun or self._deadline is None:
            return False
        self._begun = True
        log.warning(
            "asked to stop: what is in hand is finished if that takes no longer than %g s (`run.grace_s`), and dropped "
            "if it does; a second signal, or Ctrl-C once more, stops at once",
            self._grace_s,
        )
        return True

    def end(self, in_hand: int) -> None:
        """Called when nothing is left to be done, or the time is over.

        Args:
            in_hand: units that are not done, those that were dropped among them.

        Raises:
            KeyboardInterrupt: the job was asked to stop.
        """
        if self._deadline is None:
            return
        log.warning("stopped: %s; the next run goes on from here", _what_became(in_hand))
        raise KeyboardInterrupt

    def __enter__(self) -> Stopping:
        if self._grace_s and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *STOP_SIGNALS):
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            with contextlib.suppress(ValueError, TypeError):
                signal.signal(number, before if before is not None else signal.SIG_DFL)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._deadline is not None:
            raise KeyboardInterrupt
        self._deadline = self._clock() + self._grace_s


def _what_became(count: int) -> str:
    if not count:
        return "all units that were in hand are finished"
    return f"{counted(count, 'unit')} in hand not finished, and dropped"
