"""Progress: plain lines at intervals, counts inside unfinished units, and a watchdog that names the stage."""

from __future__ import annotations

import io
import logging

import pytest

from trackmill.pipeline.console.words import duration
from trackmill.pipeline.mining.progress import MiningProgress
from trackmill.pipeline.mining.unit import UnitResult
from trackmill.pipeline.workers.task import Status


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def result(unit: int, items: int, quarantined: int = 0, proposals: int = 1) -> UnitResult:
    return UnitResult(
        unit=unit,
        items=items,
        frames=items,
        proposals=proposals,
        statuses={"ok": items - quarantined, "quarantined": quarantined},
        quarantined=[],
        num_bytes=1,
        seconds=1,
    )


def test_lines_in_a_log() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = MiningProgress(100, 100, done_items=20, done_frames=20, interval_s=10, stream=stream, clock=clock)
    for second in range(1, 31):
        clock.now = second
        progress.unit_done(result(second, items=2, quarantined=second % 10 == 0))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3, "one line per interval, however many units are done"
    assert lines[-1] == "mining: 80/100 items (80%), 20 left, 2.0 items/s, 2.0 frames/s, ETA 10 s, 3 quarantined"
    assert "\x1b" not in stream.getvalue(), "no control codes in a log"


def test_items_without_one_proposal_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    progress = MiningProgress(1000, 1000, stream=io.StringIO(), clock=Clock())
    for unit in range(6):
        progress.unit_done(result(unit, items=10, quarantined=1, proposals=0))
    assert caplog.text.count("the first 54 items have no proposal at all") == 1, "quarantined ones do not count"
    caplog.clear()
    progress = MiningProgress(1000, 1000, stream=io.StringIO(), clock=Clock())
    progress.unit_done(result(0, items=10, proposals=1))
    for unit in range(1, 20):
        progress.unit_done(result(unit, items=10, proposals=0))
    assert not caplog.text


def test_items_of_unfinished_units_count_once() -> None:
    clock = Clock()
    progress = MiningProgress(10, 10, stream=io.StringIO(), clock=clock)
    clock.now = 1
    progress.tick({"a": Status(unit=0, items_done=3, frames_done=3, quarantined=1)})
    assert progress.line().startswith("3/10")
    progress.unit_done(result(0, items=5, quarantined=1))
    assert progress.line().startswith("5/10")
    assert progress.line().endswith("1 quarantined")


def test_watchdog_names_the_stage(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    progress = MiningProgress(10, 10, watchdog_s=60, stream=io.StringIO(), clock=clock)
    stuck = {"7@host": Status(unit=0, stage="proposing", source_id="/data/huge.png", since=0)}
    with caplog.at_level(logging.WARNING, "trackmill"):
        for clock.now in (1, 59):
            progress.tick(stuck)
        assert not caplog.records
        for clock.now in (61, 62, 63):
            progress.tick(stuck)
    assert len(caplog.records) == 1, "it is said once, not twice a second"
    assert "7@host is proposing /data/huge.png" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (7500, "2 h 05 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
