"""The counters that Ray exports: items by status, frames and bytes, added up over units."""

from __future__ import annotations

from collections import Counter

import pytest

from trackmill.pipeline.mining import metrics
from trackmill.pipeline.mining.unit import UnitResult


def test_units_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[tuple[str, str]] = Counter()

    class FakeCounter:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...] = ()) -> None:
            self.name = name

        def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
            assert value > 0, "Ray refuses to add nothing"
            counted[self.name, (tags or {}).get("status", "")] += int(value)

    monkeypatch.setattr(metrics, "Counter", FakeCounter)
    mining = metrics.MiningMetrics()
    for unit in range(2):
        statuses = {"ok": 3, "quarantined": unit, "skipped": 0}
        mining.unit_done(
            UnitResult(
                unit=unit,
                items=4,
                frames=10,
                proposals=9,
                statuses=statuses,
                quarantined=[],
                num_bytes=512 * unit,
                seconds=1.0,
            )
        )
    assert counted == {
        ("trackmill_mined_items", "ok"): 6,
        ("trackmill_mined_items", "quarantined"): 1,
        ("trackmill_mined_frames", ""): 20,
        ("trackmill_mined_bytes", ""): 512,
    }
