"""How far mining is: `trackmill.pipeline.workers.progress`, and a warning when nothing is found."""

from __future__ import annotations

import logging
from typing import Any

from trackmill.pipeline.mining.metrics import MiningMetrics
from trackmill.pipeline.mining.unit import UnitResult
from trackmill.pipeline.workers.progress import WorkProgress
from trackmill.pipeline.workers.task import Status

log = logging.getLogger("trackmill")

ITEMS_WITHOUT_PROPOSALS = 50
"""So many items in a row without one proposal are no chance: something is wrong with the model or its settings."""


class MiningProgress(WorkProgress):
    """Counts what is mined and tells it; see `WorkProgress` for the arguments."""

    doing = "mining"

    def __init__(self, total_items: int, total_frames: int, *args: Any, **keywords: Any) -> None:
        super().__init__(total_items, total_frames, *args, **keywords)
        self._empty_items: int | None = 0
        self.metrics: MiningMetrics | None = None
        """Told the same."""

    def tick(self, states: dict[str, Status]) -> None:
        """See `WorkProgress.tick`."""
        super().tick(states)
        if self.metrics is not None:
            items, frames, _ = self._now()
            self.metrics.tick(states, items, frames)

    def worker_died(self) -> None:
        """A worker died, or was lost with its machine."""
        if self.metrics is not None:
            self.metrics.worker_died()

    def close(self) -> None:
        """See `WorkProgress.close`."""
        super().close()
        if self.metrics is not None:
            self.metrics.close()
            self.metrics = None

    def unit_done(self, result: UnitResult) -> None:
        """A unit is complete."""
        self._watch_proposals(result)
        self.add(result.unit, result.items, result.frames, result.statuses.get("quarantined", 0))
        if self.metrics is not None:
            self.metrics.unit_done(result)

    def _watch_proposals(self, result: UnitResult) -> None:
        """Warn, once, when the first items that were mined have no proposal at all."""
        if result.proposals:
            self._empty_items = None
        if self._empty_items is None:
            return
        self._empty_items += result.statuses.get("ok", 0)
        if self._empty_items >= ITEMS_WITHOUT_PROPOSALS:
            log.warning(
                "the first %d items have no proposal at all: look at the proposer's weights and thresholds before it "
                "mines the rest",
                self._empty_items,
            )
            self._empty_items = None
