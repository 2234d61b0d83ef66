"""What a run will cost, from timing a few of its items: hours, GPU-hours, bytes, shards, and money at a price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trackmill.pipeline.console.words import duration, readable_bytes
from trackmill.pipeline.mining.plan import Plan
from trackmill.schemas.media import WorkItem

ITEMS_PER_SOURCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A forecast.

    Args:
        items, frames, units: what there is to do.
        timed: items that were timed; `failed` of them could not be mined.
        seconds_per_frame: mean over the sources, weighted by their share of the corpus.
        workers, gpus: size of the pool.
        seconds: wall-clock time of the pool.
        gpu_hours: GPUs times hours; 0 without GPUs.
        num_bytes: expected size of all shards.
        price: GPU-hours times the price of one; None without a price.
        free: bytes that are free where the shards go; None where nobody knows.
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
    num_bytes: float
    price: float | None
    free: int | None = None

    def lines(self) -> list[str]:
        """The forecast for people."""
        failed = f", {self.failed} of them could not be mined" if self.failed else ""
        text = [
            f"plan       {self.items} items, {self.frames} frames, {self.units} units",
            f"timed      {self.timed} items here{failed}: {self.seconds_per_frame:.3f} s a frame on one worker",
            f"time       {duration(self.seconds)} on {self.workers} workers ({self.seconds / 3600:.2f} h)",
            f"GPU-hours  {self.gpu_hours:.2f}" + ("" if self.gpus else " (no GPU in this pool)"),
            f"output     {readable_bytes(self.num_bytes)} in about {self.units} shards{self._room()}",
        ]
        if self.price is not None:
            text.append(f"price      {self.price:.2f} USD")
        return text

    def _room(self) -> str:
        if self.free is None:
            return ""
        enough = "" if self.free >= self.num_bytes else ": TOO LITTLE"
        return f" ({readable_bytes(self.free)} are free there{enough})"


def pick_items(plan: Plan) -> dict[str, list[WorkItem]]:
    """A few items of each source, evenly over the plan, the same ones every time."""
    sources = np.array(plan.table["source"].to_pylist())
    picked: dict[str, list[WorkItem]] = {}
    for source in plan.sources():
        rows = np.flatnonzero(sources == source)
        spread = np.unique(np.linspace(0, len(rows) - 1, ITEMS_PER_SOURCE + 2).round().astype(int)[1:-1])
        picked[source] = [plan.items(int(row), int(row) + 1)[0] for row in rows[spread]]
    return picked


def make_forecast(
    plan: Plan,
    measure: Callable[[list[WorkItem]], Sequence[tuple[int, float, int]]],
    workers: int,
    gpus: float,
    usd_per_gpu_hour: float | None,
) -> Forecast:
    """Time a few items of each source and extrapolate over the plan.

    Args:
        plan: all items.
        measure: (frames, seconds, bytes) of each item it is given, on one worker.
        workers, gpus: size of the pool that the run would have.
        usd_per_gpu_hour: price of one GPU for one hour, or None.
    """
    sources = np.array(plan.table["source"].to_pylist())
    frames = plan.table["frames"].to_numpy()
    seconds = num_bytes = 0.0
    timed = failed = 0
    picked = pick_items(plan)
    # One item first, untimed: it pays for imports and warm-up, which a long run does not.
    for items in picked.values():
        measure(items[:1])
    for source, items in picked.items():
        results = measure(items)
        timed += len(results)
        good = [(count, spent, size) for count, spent, size in results if count]
        failed += len(results) - len(good)
        share = int(frames[sources == source].sum())
        measured = sum(count for count, _, _ in good)
        if measured:
            seconds += share * sum(spent for _, spent, _ in good) / measured
            num_bytes += share * sum(size for _, _, size in good) / measured
    total = plan.num_frames
    # A pool is never busier than it has units.
    wall = seconds / max(1, min(workers, plan.num_units))
    gpu_hours = wall / 3600 * gpus
    return Forecast(
        items=plan.num_items,
        frames=total,
        units=plan.num_units,
        timed=timed,
        failed=failed,
        seconds_per_frame=seconds / total if total else 0.0,
        workers=workers,
        gpus=gpus,
        seconds=wall,
        gpu_hours=gpu_hours,
        num_bytes=num_bytes,
        price=None if usd_per_gpu_hour is None else gpu_hours * usd_per_gpu_hour,
    )
