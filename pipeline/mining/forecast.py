"""What mining a plan will cost, from timing a few items of each source."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from trackmill.pipeline.mining.plan import Plan
from trackmill.pipeline.workers.forecast import Forecast, Group, Measure, extrapolate, spread
from trackmill.pipeline.workers.prices import NO_PRICES, Prices
from trackmill.schemas.media import WorkItem


def pick_items(plan: Plan) -> dict[str, list[WorkItem]]:
    """A few items of each source, evenly over the plan, the same ones every time."""
    wanted = {source: np.asarray(spread(count)) for source, count in sorted(plan.items_of().items())}
    rows: dict[str, list[int]] = {source: [] for source in wanted}
    before, first = dict.fromkeys(wanted, 0), 0
    for batch in plan.batches(["source"]):
        for source in batch["source"].unique().to_pylist():
            here = np.flatnonzero(pc.equal(batch["source"], source).to_numpy())
            places = wanted[source] - before[source]
            rows[source] += (first + here[places[(places >= 0) & (places < len(here))]]).tolist()
            before[source] += len(here)
        first += len(batch)
    return {source: [plan.items(row, row + 1)[0] for row in places] for source, places in rows.items()}


def make_forecast(
    plan: Plan,
    measure: Measure,
    workers: int,
    gpus: float,
    cpus_each: float = 1.0,
    prices: Prices = NO_PRICES,
) -> Forecast:
    """Time a few items of each source and extrapolate over the plan.

    Args:
        plan: all items.
        measure: see `trackmill.pipeline.workers.forecast.Measure`.
        workers, gpus: size of the pool that the run would have.
        cpus_each: CPU cores that a worker reserves.
        prices: of an hour.
    """
    frames = plan.frames_of()
    groups = [Group(frames[source], items) for source, items in pick_items(plan).items()]
    return extrapolate(
        groups,
        measure,
        items=plan.num_items,
        units=plan.num_units,
        workers=workers,
        gpus=gpus,
        cpus_each=cpus_each,
        prices=prices,
    )
