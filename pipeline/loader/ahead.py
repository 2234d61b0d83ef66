"""Joins batches in a thread beside a step that waits for a GPU, into memory that a GPU can copy from by itself.

Joining a batch of large pictures takes as long as a good part of a step. On a GPU that part of the step is free: the
training thread only waits there. On a CPU nothing is free, so batches are joined when they are asked for.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from trackmill.pipeline.loader.nested import map_tensors


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class Ahead(Iterator[Any]):
    """Calls `make` in a thread, one batch ahead, and gives its results in order.

    Args:
        make: gives the next result, or raises; the error is raised where the result would be taken.
        depth: so many results wait at most.
    """

    def __init__(self, make: Callable[[], Any], depth: int = 1) -> None:
        self._make = make
        self._results: queue.Queue[Any] = queue.Queue(depth)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collate", daemon=True)
        self._thread.start()

    def __next__(self) -> Any:
        result = self._results.get()
        if isinstance(result, _End):
            self._results.put(result)  # for whoever asks again
            raise result.error if result.error is not None else StopIteration
        return result

    def close(self, timeout_s: float = 30.0) -> None:
        """End the thread; what it has made is dropped. It may still be waiting for data when the time is over."""
        self._closing.set()
        while self._thread.is_alive() and timeout_s > 0:
            try:
                self._results.get_nowait()
            except queue.Empty:
                self._thread.join(0.05)
                timeout_s -= 0.05

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                result = self._make()
            except BaseException as error:
                result = _End(error)
            while not self._closing.is_set():
                try:
                    self._results.put(result, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(result, _End):
                return


def pinned(batch: Any) -> Any:
    """A batch with its tensors in page-locked memory, from which a GPU copies while the processor does other things."""
    if not torch.cuda.is_available():
        return batch
    return map_tensors(batch, lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor)
