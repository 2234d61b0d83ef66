"""Who does units in a process: what a driver, an actor or this process itself asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from trackmill.pipeline.workers.inflight import InFlightNote
from trackmill.pipeline.workers.item_clock import ItemClock
from trackmill.pipeline.workers.task import Status
from trackmill.pipeline.workers.turns import Turns
from trackmill.schemas.media import WorkItem


class UnitWorker(Protocol):
    """Who does units, in whatever process: a miner, or a maker of sidecars.

    Its `note` says which items it has in hand, its `clock` which of them hangs, its `turns` when it wants another unit.
    """

    note: InFlightNote
    clock: ItemClock
    turns: Turns

    @property
    def status(self) -> Status:
        """What it is doing right now; any thread may read it."""
        ...

    def run_unit(self, task: Any) -> Any:
        """Do one unit, and write what comes of it.

        Two threads may call it at once: the items of the later unit are done while the earlier one is published.

        Raises:
            UnitDropped: there is no time for it, see `Turns.drop_after`.
            StorageFailed: the output could not be written.
            DeviceLost: the accelerator failed; this worker is of no more use.
        """
        ...

    def measure(self, items: Sequence[WorkItem]) -> list[tuple[int, float, int]]:
        """Do items without writing anything: (frames, seconds, bytes) of each; (0, seconds, 0) for a bad one."""
        ...

    def close(self) -> None:
        """End in good order: leave nothing behind."""
        ...
