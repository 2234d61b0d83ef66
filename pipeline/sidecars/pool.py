"""Parts of a sidecar on Ray: one actor for each GPU or CPU, a part at a time, the dead replaced.

A part has no items that could be blamed one by one as a unit of mining has: a part that three workers did not survive
is given up and named, and the others are made.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from trackmill.pipeline.ray_cluster import start_ray
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.sidecars.making import Maker
from trackmill.pipeline.sidecars.part_work import PartResult, PartTask, SidecarWork, make_part
from trackmill.pipeline.storage.credentials import adopt_environment
from trackmill.schemas.errors import JobError

log = logging.getLogger("trackmill")

_DEATHS_OF_A_PART = 3
_DEATHS_AT_START = 3


@ray.remote
class SidecarActor:
    """Holds a loaded producer and makes one part at a time."""

    def __init__(self, work: SidecarWork) -> None:
        self._work = work
        self._maker: Maker | None = None

    def start(self) -> None:
        """Load the producer. Apart from `__init__`, so that an error here reaches the driver as itself."""
        logging.basicConfig(level=logging.WARNING)
        adopt_environment(self._work.environment)
        self._maker = Maker(self._work.job)

    def make(self, task: PartTask) -> PartResult:
        """See `make_part`."""
        assert self._maker is not None
        return make_part(Layout(self._work.root), self._maker, self._work.dataset, task)


@dataclass(slots=True)
class _Slot:
    """An actor, what it was asked last, and the part that it makes; None while it starts."""

    actor: Any
    asked: Any
    task: PartTask | None = None


class SidecarPool:
    """Makes parts on Ray.

    Args:
        work: what to make.
        size: actors; 0: one per GPU where the producer gains from one, else one per CPU.
    """

    def __init__(self, work: SidecarWork, size: int = 0) -> None:
        self._work = work
        if not ray.is_initialized():
            start_ray(without="--executor inline")
        resources = ray.cluster_resources()
        self._gpus_each = 1 if work.job.uses_gpu and resources.get("GPU", 0) else 0
        if work.job.uses_gpu and not self._gpus_each:
            log.warning("no GPU in this Ray cluster: the producer runs on CPUs")
        self.size = size or max(1, int(resources.get("GPU" if self._gpus_each else "CPU", 1)))
        self._slots: list[_Slot] = []
        self._waiting: deque[PartTask] = deque()
        self._deaths: Counter[str] = Counter()
        self._deaths_at_start = 0

    def run(self, tasks: Iterable[PartTask]) -> Iterator[PartResult]:
        """Yield each part's result as it is made, in no particular order.

        Raises:
            JobError: workers die before they make anything.
            Exception: what loading the producer, or the producer's breach of its contract, or storage raised.
        """
        self._waiting.extend(tasks)
        # Never restarted by Ray: a restarting actor fails all calls in its queue at once.
        make_actor = SidecarActor.options(num_cpus=1, num_gpus=self._gpus_each, max_restarts=0)  # type: ignore[attr-defined]
        try:
            while self._waiting or any(slot.task for slot in self._slots):
                starting = sum(slot.task is None for slot in self._slots)
                for _ in range(min(self.size - len(self._slots), len(self._waiting) - starting)):
                    actor = make_actor.remote(self._work)
                    self._slots.append(_Slot(actor, actor.start.remote()))
                asked = {slot.asked: slot for slot in self._slots}
                for reference in ray.wait(list(asked), num_returns=1)[0]:
                    yield from self._answered(asked[reference])
        finally:
            for slot in self._slots:
                ray.kill(slot.actor)
            self._slots.clear()

    def _answered(self, slot: _Slot) -> Iterator[PartResult]:
        try:
            answer = ray.get(slot.asked)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            raise cause from error
        except RayError as error:
            yield from self._died(slot, error)
            return
        if slot.task is None:
            self._deaths_at_start = 0
        else:
            yield answer
        slot.task = self._waiting.popleft() if self._waiting else None
        if slot.task is None:
            self._slots.remove(slot)
            ray.kill(slot.actor)
        else:
            slot.asked = slot.actor.make.remote(slot.task)

    def _died(self, slot: _Slot, error: RayError) -> Iterator[PartResult]:
        """A worker is gone: another takes its place, unless its part killed too many."""
        self._slots.remove(slot)
        with contextlib.suppress(Exception):
            ray.kill(slot.actor)  # unavailable is not dead: make sure that it does not write on
        if slot.task is None:
            self._deaths_at_start += 1
            if self._deaths_at_start >= _DEATHS_AT_START:
                raise JobError(f"{_DEATHS_AT_START} workers died while starting (out of memory?); last: {error}")
            return
        name = slot.task.file_name
        self._deaths[name] += 1
        if self._deaths[name] >= _DEATHS_OF_A_PART:
            yield PartResult(file_name=name, failed=f"{_DEATHS_OF_A_PART} workers died while they made it")
            return
        log.warning("a worker died while it made %s, which is made again", name)
        self._waiting.appendleft(slot.task)
