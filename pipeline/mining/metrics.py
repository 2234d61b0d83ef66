"""Counters for Prometheus through Ray: items by status, frames, bytes."""

from __future__ import annotations

from ray.util.metrics import Counter

from trackmill.pipeline.mining.unit import UnitResult


class MiningMetrics:
    """Counters of this job; Ray exports them from every node."""

    def __init__(self) -> None:
        self._items = Counter("trackmill_mined_items", "Items mined, by what became of them.", tag_keys=("status",))
        self._frames = Counter("trackmill_mined_frames", "Frames mined.")
        self._bytes = Counter("trackmill_mined_bytes", "Bytes of shards written.")

    def unit_done(self, result: UnitResult) -> None:
        """Add a unit."""
        for status, count in result.statuses.items():
            if count:
                self._items.inc(count, {"status": status})
        self._frames.inc(result.frames)
        if result.num_bytes:
            self._bytes.inc(result.num_bytes)
