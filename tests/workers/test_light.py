"""The speed of light: every second of every worker has a name."""

from __future__ import annotations

import pytest

from trackmill.pipeline.workers.light import SpeedOfLight
from trackmill.pipeline.workers.work_times import Ledger, WorkTimes


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_ledger_books_every_second_once() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    clock.now += 1  # no unit
    ledger.wait("reading")
    clock.now += 2
    with ledger.model():
        clock.now += 4
        with ledger.model():  # two calls at once
            clock.now += 8
        ledger.wait("writing")
        clock.now += 16
    clock.now += 32  # the model waits
    ledger.wait(None)
    with ledger.publishing():
        clock.now += 64
        ledger.wait("reading")  # the next unit has begun
        clock.now += 128
        ledger.wait(None)
    times = ledger.take()
    assert times == WorkTimes(model=28, reading=130, writing=32, publishing=64, waiting=1)
    assert times.total == 255
    clock.now += 5
    assert ledger.take() == WorkTimes(waiting=5), "since it was last asked"


def test_the_time_of_a_run_adds_up() -> None:
    clock = Clock()
    light = SpeedOfLight(clock)
    for worker in range(3):
        light.ordered(worker)
    clock.now += 30
    light.ready(0, "w0")
    clock.now += 10  # before the first unit: not counted
    light.given()
    clock.now += 20
    light.ready(1, "w1")  # started 20 s late
    clock.now += 40
    light.told(0, WorkTimes(model=50, reading=4, writing=3, publishing=2, waiting=11))
    light.told(1, WorkTimes(model=30, reading=10))
    clock.now += 10
    light.gone(1, lost=True)  # ten seconds of work are lost
    clock.now += 30
    light.gone(2)  # never became ready
    found = light.sum_up()
    assert found is not None
    assert found.seconds == 100 + 70 + 100
    assert found.spent == {
        "model": 80,
        "reading": 14,
        "writing": 3,
        "publishing": 2,
        "starting": 20 + 100,
        "waiting": 1 + 40,
        "lost": 10,
    }
    assert sum(found.spent.values()) == found.seconds
    assert found.worst == ("w1", 30 / 70)
    assert found.line() == (
        "speed of light 0.30: the model worked 1 min 20 s of 4 min 30 s of worker time; the rest: starting workers "
        "44.4 %, waiting for work 15.2 %, reading 5.2 %, work that was lost 3.7 %, encoding and writing 1.1 %, "
        "publishing 0.7 %; slowest worker w1: 0.43"
    )


def test_a_perfect_run_and_none() -> None:
    clock = Clock()
    light = SpeedOfLight(clock)
    assert light.sum_up() is None
    light.ordered(0)
    light.ready(0, "w")
    light.given()
    clock.now += 60
    light.told(0, WorkTimes(model=60))
    found = light.sum_up()
    assert found is not None and found.speed == pytest.approx(1)
    assert found.line() == "speed of light 1.00: the model worked 1 min 00 s of 1 min 00 s of worker time"


def test_two_clocks_that_differ_a_little_make_no_negative_times() -> None:
    clock = Clock()
    light = SpeedOfLight(clock)
    light.ordered(0)
    light.ready(0, "w")
    light.given()
    clock.now += 60
    light.told(0, WorkTimes(model=60, waiting=0.5))
    found = light.sum_up()
    assert found is not None and min(found.spent.values()) == 0 and found.speed == 1
