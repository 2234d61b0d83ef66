"""What mining a plan will cost, from timing a few items of each source."""

from __future__ import annotations

import numpy as np

from trackmill.pipeline.mining.plan import Plan
from trackmill.pipeline.workers.forecast import Forecast, Group, Measure, extrapolate, spread
from trackmill.schemas.media import WorkItem


def pick_items(plan: Plan) -> dict[str, list[WorkItem]]:
    """A few items of each source, evenly over the plan, the same ones every time."""
    sources = np.array(plan.table["source"].to_pylist())
    picked: dict[str, list[WorkItem]] = {}
    for source in plan.sources():
        rows = np.flatnonzero(sources == source)
        picked[source] = [plan.items(int(row), int(row) + 1)[0] for row in rows[spread(len(rows))]]
    return picked


def make_forecast(plan: Plan, measure: Measure, workers: int, gpus: float, usd_per_gpu_hour: float | None) -> Forecast:
    """Time a few items of each source and extrapolate over the plan.

    Args:
        plan: all items.
        measure: see `trackmill.pipeline.workers.forecast.Measure`.
        workers, gpus: size of the pool that the run would have.
        usd_per_gpu_hour: price of one GPU for one hour, or None.
    """
    sources = np.array(plan.table["source"].to_pylist())
    frames = plan.table["frames"].to_numpy()
    groups = [Group(int(frames[sources == source].sum()), items) for source, items in pick_items(plan).items()]
    return extrapolate(
        groups,
        measure,
        items=plan.num_items,
        units=plan.num_units,
        workers=workers,
        gpus=gpus,
        usd_per_gpu_hour=usd_per_gpu_hour,
    )
