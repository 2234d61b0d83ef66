"""One small interface for TensorBoard, MLflow and W&B, and a thread that keeps slow ones from holding up training."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Protocol

Scalars = Sequence[tuple[int, dict[str, float]]]
"""Steps and their numbers by tag, e.g. `(40, {"loss/total": 3.2})`."""

_QUEUE = 10_000
"""Reports that may wait for a slow server."""


class Sink(Protocol):
    """A program that draws curves. Whatever it raises switches it off for the rest of the run."""

    name: str

    def scalars(self, scalars: Scalars) -> None:
        """Numbers of steps, in order."""

    def sync(self) -> None:
        """A checkpoint is about to be written."""

    def close(self, status: str) -> None:
        """The run is over: `finished`, `stopped` (to be continued) or `failed`."""


class Background:
    """A sink behind a thread, so that a server that answers slowly, or no more, never makes training wait.

    An error of the thread is raised by the next call.
    """

    def __init__(self, sink: Sink, close_s: float = 60.0) -> None:
        self.name = sink.name
        self._sink, self._close_s = sink, close_s
        self._error: Exception | None = None
        self._queue: queue.Queue[Scalars | str] = queue.Queue(_QUEUE)
        self._thread = threading.Thread(target=self._run, name=f"telemetry {sink.name}", daemon=True)
        self._thread.start()

    def scalars(self, scalars: Scalars) -> None:
        """Hand over.

        Raises:
            TimeoutError: the sink does not keep up.
        """
        self._put(list(scalars))

    def sync(self) -> None:
        """Nothing: waiting for a server is what this is there to avoid."""
        if self._error is not None:
            raise self._error

    def close(self, status: str) -> None:
        """Wait for what is still to be written.

        Raises:
            TimeoutError: that takes longer than `close_s`.
        """
        self._put(status)
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            raise TimeoutError(f"not done within {self._close_s:.0f} s")
        if self._error is not None:
            raise self._error

    def _put(self, item: Scalars | str) -> None:
        if self._error is not None:
            raise self._error
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            raise TimeoutError(f"{_QUEUE:,} reports are waiting for it") from None

    def _run(self) -> None:
        try:
            while not isinstance(item := self._queue.get(), str):
                self._sink.scalars(item)
            self._sink.close(item)
        except Exception as error:
            self._error = error
