"""Rates from the times of files, and which receipts are read."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from trackmill.pipeline.status.pace import Pace, pace_of
from trackmill.pipeline.status.quarantined import chosen


@pytest.mark.parametrize(
    ("times", "recent", "overall", "pauses"),
    [
        pytest.param([], None, None, 0, id="nothing"),
        pytest.param([5.0], None, None, 0, id="one file is no rate"),
        pytest.param([0.0, 10.0, 20.0], 0.1, 0.1, 0, id="one in ten seconds"),
        pytest.param([20.0, 0.0, 10.0], 0.1, 0.1, 0, id="in any order"),
        pytest.param([math.nan, 0.0, 10.0], 0.1, 0.1, 0, id="times that are not told"),
        pytest.param([0.0, 0.0, 0.0], None, None, 0, id="all in one second"),
        # Eleven an hour ago at one a minute, then eleven at one a second after a night.
        pytest.param(
            [60.0 * i for i in range(11)] + [40_000.0 + i for i in range(11)], 1.0, 20 / 610, 1, id="a night between"
        ),
        # The last ten minutes hold two files only, so five are taken.
        pytest.param([1000.0 * i for i in range(8)], 1 / 1000, 1 / 1000, 0, id="slow units"),
    ],
)
def test_rates(times: list[float], recent: float | None, overall: float | None, pauses: int) -> None:
    pace = pace_of(times)
    assert pace.recent == (None if recent is None else pytest.approx(recent))
    assert pace.overall == (None if overall is None else pytest.approx(overall))
    assert pace.pauses == pauses


def test_what_is_left_takes() -> None:
    assert Pace(recent=2.0, overall=1.0).left_s(10) == 5
    assert Pace(overall=1.0).left_s(10) == 10
    assert Pace().left_s(10) is None


def test_the_newest_receipts_and_some_of_the_others_are_read() -> None:
    names = [f"part-{number:08d}" for number in range(22_000)]
    some = chosen(names, 200)
    assert len(some) == len(set(some)) == 200
    assert some[100:] == names[-100:]
    assert some[0] == names[0] and some[99] < names[-100]
    gaps = {names.index(b) - names.index(a) for a, b in pairwise(some[:100])}
    assert gaps == {219}
    assert chosen(names[:50]) == names[:50]
