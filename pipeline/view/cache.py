"""A cache of bounded size that makes each entry once, also when several threads ask for it at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Entries by key; the longest unused goes first, the newest always stays.

    Args:
        max_bytes: of all entries together.
        size_of: bytes of an entry.
        at_once: how many entries are made at the same time; who asks for one more waits.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[V], int], at_once: int = 8) -> None:
        self._max_bytes, self._size_of = max_bytes, size_of
        self._entries: OrderedDict[K, V] = OrderedDict()
        self.held_bytes = 0
        self._lock = threading.Lock()
        self._making: dict[K, threading.Lock] = {}
        self._room = threading.Semaphore(at_once)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The entry of a key; what `make` raises is raised, and tried again next time."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
            turn = self._making.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._entries:  # another thread made it meanwhile
                    return self._entries[key]
            try:
                with self._room:
                    made = make()
                with self._lock:
                    self._keep(key, made)
                return made
            finally:
                with self._lock:
                    self._making.pop(key, None)

    def _keep(self, key: K, made: V) -> None:
        if key in self._entries:
            self.held_bytes -= self._size_of(self._entries.pop(key))
        self._entries[key] = made
        self.held_bytes += self._size_of(made)
        while self.held_bytes > self._max_bytes and len(self._entries) > 1:
            _, oldest = self._entries.popitem(last=False)
            self.held_bytes -= self._size_of(oldest)
