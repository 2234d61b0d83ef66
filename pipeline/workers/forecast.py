"""What a run will cost, from timing a few of its items: hours, GPU-hours, bytes, shards, and money at a price."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from trackmill.pipeline.console.words import counted, duration, readable_bytes
from trackmill.pipeline.workers.prices import NO_PRICES, Prices
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")

ITEMS_PER_GROUP = 4

Measure = Callable[[list[WorkItem]], Sequence[tuple[int, float, int]]]
"""(frames, seconds, bytes) of each item, one after the other on one worker; no frames where an item is bad.

Each call may start a worker of its own, which takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A forecast.

    Args:
        items, frames, units: what there is to do.
        timed: items that were timed; `failed` of them could not be mined.
        seconds_per_frame: mean over the groups (sources, for mining), weighted by their share of the corpus.
        workers, gpus: size of the pool.
        seconds: wall-clock time of the pool.
        gpu_hours: GPUs times hours; 0 without GPUs.
        cpu_hours: CPU cores that the pool reserves, times hours.
        num_bytes: expected size of all files.
        price: of these hours, see `trackmill.pipeline.workers.prices`; `priced` says of which, or why there is none.
        free: bytes that are free where the files go; None where nobody knows.
        things, done, files: what items are called, what is done to them, and what comes of it.
    """

    items: int
    frames: int
    units: int
    timed: int
    failed: int
    seconds_per_frame: float
    workers: int
    gpus: float
    seconds: float
    gpu_hours: float
    cpu_hours: float
    num_bytes: float
    price: float | None
    priced: str = ""
    free: int | None = None
    things: str = "items"
    done: str = "mined"
    files: str = "shards"

    def lines(self) -> list[str]:
        """The forecast for people."""
        failed = f", {self.failed} of them could not be {self.done}" if self.failed else ""
        files = counted(self.units, self.files[:-1])
        text = [
            f"plan       {self._things(self.items)}, {counted(self.frames, 'frame')}, {counted(self.units, 'unit')}",
            f"timed      {self._things(self.timed)} here{failed}: {self.seconds_per_frame:.3f} s a frame on one worker",
            f"time       {duration(self.seconds)} on {counted(self.workers, 'worker')} ({self.seconds / 3600:.2f} h)",
            f"GPU-hours  {self.gpu_hours:.2f}" + ("" if self.gpus else " (no GPU in this pool)"),
            f"CPU-hours  {self.cpu_hours:.2f}",
            f"output     {readable_bytes(self.num_bytes)} in about {files}{self._room()}",
        ]
        if self.price is not None:
            text.append(f"price      {self.price:.2f} USD ({self.priced})")
        elif self.priced:
            text.append(f"price      {self.priced}")
        return text

    def _things(self, count: int) -> str:
        return counted(count, self.things[:-1])

    def _room(self) -> str:
        if self.free is None:
            return ""
        enough = "" if self.free >= self.num_bytes else ": TOO LITTLE"
        return f" ({readable_bytes(self.free)} are free there{enough})"


@dataclass(frozen=True, slots=True)
class Group:
    """Items that take about the same time for a frame.

    Args:
        frames: of the whole group.
        picked: a few of its items, which are timed.
    """

    frames: int
    picked: list[WorkItem]


def spread(count: int) -> list[int]:
    """A few places among `count`, evenly, the same ones every time."""
    places = np.linspace(0, count - 1, ITEMS_PER_GROUP + 2).round().astype(int)[1:-1]
    found: list[int] = np.unique(places).tolist()
    return found


def extrapolate(
    groups: Sequence[Group],
    measure: Measure,
    *,
    items: int,
    units: int,
    workers: int,
    gpus: float,
    cpus_each: float = 1.0,
    prices: Prices = NO_PRICES,
) -> Forecast:
    """Time a few items of each group and extrapolate over all.

    Args:
        groups: everything there is to do.
        measure: see `Measure`.
        items, units: what there is to do.
        workers, gpus: size of the pool that the run would have.
        cpus_each: CPU cores that a worker reserves.
        prices: of an hour.
    """
    seconds = num_bytes = 0.0
    timed = failed = 0
    # One item of each group first, which does not count: it pays for imports and warm-up, which a long run does not.
    # The last one, since what was read just before may still be open when it is timed.
    first = [item for group in groups for item in group.picked[-1:]]
    rest = [item for group in groups for item in group.picked]
    log.info("timing %s on one worker, which is started first", counted(len(rest), "item"))
    spent_on = iter(measure([*first, *rest])[len(first) :] if rest else ())
    for group in groups:
        results = list(islice(spent_on, len(group.picked)))
        timed += len(results)
        good = [(count, spent, size) for count, spent, size in results if count]
        failed += len(results) - len(good)
        measured = sum(count for count, _, _ in good)
        if measured:
            seconds += group.frames * sum(spent for _, spent, _ in good) / measured
            num_bytes += group.frames * sum(size for _, _, size in good) / measured
    total = sum(group.frames for group in groups)
    # A pool is never busier than it has units.
    wall = seconds / max(1, min(workers, units))
    gpu_hours = wall / 3600 * gpus
    cpu_hours = wall / 3600 * workers * cpus_each
    return Forecast(
        items=items,
        frames=total,
        units=units,
        timed=timed,
        failed=failed,
        seconds_per_frame=seconds / total if total else 0.0,
        workers=workers,
        gpus=gpus,
        seconds=wall,
        gpu_hours=gpu_hours,
        cpu_hours=cpu_hours,
        num_bytes=num_bytes,
        price=prices.of(gpu_hours, cpu_hours),
        priced=prices.what(gpus),
    )
