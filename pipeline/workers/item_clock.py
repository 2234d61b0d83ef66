"""How long a worker has been at the items that it mines, and which of them hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

_CHECK_S = 1.0
_STOOD_STILL = 3.0
"""A sleep that takes so many times what was asked for is none: the process was stopped, or starved of its core."""


class ItemClock:
    """Knows since when each item is being mined; a miner's threads share it.

    Args:
        timeout_s: `run.item_timeout_s`: what mining an item may take for each of its frames; 0: any time.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._deadlines: dict[Hashable, float] = {}

    @contextmanager
    def running(self, item: Hashable, frames: int) -> Iterator[None]:
        """Within, an item, called as the caller likes, of so many frames, is being mined."""
        with self._lock:
            self._deadlines[item] = time.monotonic() + self._timeout_s * max(1, frames)
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[item]

    def overdue(self) -> Hashable | None:
        """The item that should have been done first, if it should be done by now."""
        if not self._timeout_s:
            return None
        with self._lock:
            first = min(self._deadlines, key=self._deadlines.__getitem__, default=None)
            return first if first is not None and self._deadlines[first] < time.monotonic() else None

    def stood_still(self, seconds: float) -> None:
        """The whole process did, by SIGSTOP or with its machine: that is no item's fault."""
        with self._lock:
            for item in self._deadlines:
                self._deadlines[item] += seconds

    def watch(self, end: Callable[[Any], None]) -> None:
        """From now on, call `end` with an item that is overdue, from a thread of its own."""
        if self._timeout_s:
            threading.Thread(target=self._watch, args=(end,), name="item-clock", daemon=True).start()

    def _watch(self, end: Callable[[Any], None]) -> None:
        while (item := self.overdue()) is None:
            begin = time.monotonic()
            time.sleep(_CHECK_S)
            if (slept := time.monotonic() - begin) > _STOOD_STILL * _CHECK_S:
                self.stood_still(slept - _CHECK_S)
        end(item)
