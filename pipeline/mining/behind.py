"""What is done with an item after the model: encoding and writing, in threads behind the one that asks the model.

Encoding is done by two threads, for JPEG can take longer than a fast model; writing by one, in the order of the items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from trackmill.pipeline.mining.kept import KeptUnit
from trackmill.pipeline.shards.writer import ShardWriter
from trackmill.pipeline.sidecars.making import UnitParts
from trackmill.pipeline.workers.task import UnitTask
from trackmill.schemas.receipt import ReceiptRow

MOST_BEHIND = 3
"""Items of a unit that wait to be encoded and written; with one more, the model waits."""
_ENCODERS = 2

T = TypeVar("T")
M = TypeVar("M")


class Behind(Generic[T, M]):
    """The threads behind the model of one worker.

    Args:
        encode: an item of a unit, with its proposals, to what is to be written.
        store: writes it; called in the order of the items, from one thread.
    """

    def __init__(
        self,
        encode: Callable[[UnitTask, T], M],
        store: Callable[[UnitTask, M, ShardWriter, UnitParts, KeptUnit], ReceiptRow],
    ) -> None:
        self._encode, self._store = encode, store
        self._encoders = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="encoder")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self.publisher = ThreadPoolExecutor(1, thread_name_prefix="publisher")

    @contextmanager
    def of(self, task: UnitTask, writer: ShardWriter, parts: UnitParts, kept: KeptUnit) -> Iterator[UnitBehind[T]]:
        """Within, items of a unit may be added; afterwards no thread works on it any more."""

        def begin(proposed: T) -> tuple[Future[Any], Future[ReceiptRow]]:
            encoding = self._encoders.submit(self._encode, task, proposed)

            def write() -> ReceiptRow:
                return self._store(task, encoding.result(), writer, parts, kept)

            return encoding, self._writer.submit(write)

        unit = UnitBehind(begin)
        try:
            yield unit
        finally:
            unit.abandon()

    def close(self) -> None:
        """Begin nothing any more."""
        for pool in (self._encoders, self._writer, self.publisher):
            pool.shutdown(wait=False, cancel_futures=True)


class UnitBehind(Generic[T]):
    """The items of one unit that the model is done with.

    Args:
        begin: begins to encode and write one.
    """

    def __init__(self, begin: Callable[[T], tuple[Future[Any], Future[ReceiptRow]]]) -> None:
        self._begin = begin
        self._waiting: deque[tuple[Future[Any], Future[ReceiptRow]]] = deque()
        self._rows: list[ReceiptRow] = []

    def add(self, proposed: T) -> None:
        """Hand an item over; waits while too many are behind.

        Raises:
            Exception: what encoding or writing of an earlier item raised.
        """
        self._waiting.append(self._begin(proposed))
        while len(self._waiting) > MOST_BEHIND:
            self._take()

    def settle(self) -> None:
        """Wait until all that was handed over is written; raises what `add` raises."""
        while self._waiting:
            self._take()

    def rows(self) -> list[ReceiptRow]:
        """Of all items, in their order, once they are written; raises what `add` raises."""
        self.settle()
        return self._rows

    def abandon(self) -> None:
        """Give up what is not written yet."""
        for each in reversed(self._waiting):
            for future in reversed(each):
                future.cancel()
        wait([future for each in self._waiting for future in each])
        self._waiting.clear()

    def _take(self) -> None:
        self._rows.append(self._waiting[0][1].result())
        self._waiting.popleft()
