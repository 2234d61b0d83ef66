"""Neighbouring byte ranges of a file fetched by one request: whoever knows what will be read says so beforehand.

A wrong guess is harmless: what lies in no window, or in one that could not be fetched, is read by itself, so that an
error is always that of the range that was asked for.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

MAX_WINDOW_BYTES = 16 << 20
"""Of one request: on a link of 1 GB/s it takes about as long as the request itself."""

HELD = 3
"""Windows in memory: the one that is read, the one before (an item may lie across both), the one that is on its way."""

_MOST_GAP = 1 << 20
"""Bytes between two ranges that are fetched too: they take less time than a request."""
_ATTEMPTS = 2

Fetch = Callable[[str, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes that are going to be read."""

    uri: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length


class Windows:
    """Ranges joined to windows, each of which is fetched when it is needed first, and the next one meanwhile.

    Args:
        ranges: what is going to be read, in that order.
        fetch: gives bytes `begin` to `end` of a file, in one attempt; called in a thread of its own.
        max_bytes: of a window.
    """

    def __init__(self, ranges: Iterable[Range], fetch: Fetch, max_bytes: int = MAX_WINDOW_BYTES) -> None:
        self._fetch = fetch
        self._windows = join_ranges(ranges, max_bytes)
        self._by_file: dict[str, list[int]] = {}
        for number, window in enumerate(self._windows):
            self._by_file.setdefault(window.uri, []).append(number)
        self._held: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._failed: dict[int, int] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="window") if self._windows else None

    def get(self, uri: str, offset: int, length: int) -> bytes | None:
        """Bytes of a range; None where they lie in no window, or that could not be fetched."""
        for number in self._by_file.get(uri, ()):
            window = self._windows[number]
            if window.offset <= offset and offset + length <= window.end:
                data = self._data(number)
                place = offset - window.offset
                return None if data is None or len(data) < place + length else data[place : place + length]
        return None

    def close(self) -> None:
        """Let go of everything."""
        self._held.clear()
        self._by_file.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _data(self, number: int) -> bytes | None:
        if self._failed.get(number, 0) >= _ATTEMPTS:
            return None
        coming = self._ask(number)
        if number + 1 < len(self._windows) and not self._failed.get(number + 1):
            self._ask(number + 1)
            self._held.move_to_end(number)
        try:
            return coming.result()
        except Exception:
            self._failed[number] = self._failed.get(number, 0) + 1
            self._held.pop(number, None)
            return None

    def _ask(self, number: int) -> Future[bytes]:
        if number not in self._held:
            while len(self._held) >= HELD:
                self._held.popitem(last=False)[1].cancel()
            window = self._windows[number]
            assert self._thread is not None
            self._held[number] = self._thread.submit(self._fetch, window.uri, window.offset, window.end)
        self._held.move_to_end(number)
        return self._held[number]


def join_ranges(ranges: Iterable[Range], max_bytes: int) -> list[Range]:
    """Windows of at least two ranges each, in the order in which they are needed first."""
    needed: dict[Range, int] = {}
    for place, wanted in enumerate(ranges):
        if 0 < wanted.length <= max_bytes and wanted.offset >= 0:
            needed.setdefault(wanted, place)
    found: list[tuple[int, Range]] = []
    count, first, window = 0, 0, Range("", 0, 0)
    for wanted in sorted(needed, key=lambda each: (each.uri, each.offset, each.length)):
        end = max(window.end, wanted.end)
        if window.uri == wanted.uri and wanted.offset - window.end <= _MOST_GAP and end - window.offset <= max_bytes:
            window = Range(window.uri, window.offset, end - window.offset)
            count, first = count + 1, min(first, needed[wanted])
            continue
        if count > 1:
            found.append((first, window))
        count, first, window = 1, needed[wanted], wanted
    if count > 1:
        found.append((first, window))
    return [window for _, window in sorted(found, key=lambda each: each[0])]


_IN_FORCE: ContextVar[Windows | None] = ContextVar("windows", default=None)


@contextmanager
def reading_through(windows: Windows | None) -> Iterator[None]:
    """Within, ranges that lie in a window are read out of it."""
    token = _IN_FORCE.set(windows)
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def from_window(uri: str, offset: int, length: int) -> bytes | None:
    """See `Windows.get`; None outside of any `reading_through`."""
    windows = _IN_FORCE.get()
    if windows is None:
        return None
    with contextlib.suppress(RuntimeError):  # its thread cannot be started, or the interpreter ends
        return windows.get(uri, offset, length)
    return None
