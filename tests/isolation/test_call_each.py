"""Many inputs in a few children: results in order, and only the guilty are refused."""

from __future__ import annotations

import pytest

from tests.isolation.hostile import Reader
from trackmill.pipeline.isolation.call_each import Refused, call_each
from trackmill.pipeline.isolation.limits import Limits
from trackmill.pipeline.isolation.process import ChildFailed


def test_the_guilty_are_refused_and_all_others_are_not() -> None:
    inputs = [f"input {number}" for number in range(40)]
    inputs[3], inputs[17], inputs[18], inputs[39] = "crash", "eat", "hang", "raise"
    limits = Limits(memory_bytes=300 << 20, seconds=3)
    results = list(call_each(Reader, (), "read", inputs, limits, children=2, at_once=8))
    refused = {place: result.reason for place, result in enumerate(results) if isinstance(result, Refused)}
    assert sorted(refused) == [3, 17, 18, 39]
    assert "SIGABRT" in refused[3] and "item_memory_bytes" in refused[17] and "item_timeout_s" in refused[18]
    assert refused[39].startswith("KeyError")
    good = [place for place in range(40) if place not in refused]
    assert [results[place] for place in good] == [inputs[place].upper() for place in good]


def test_who_stops_taking_results_does_not_wait_for_one_that_hangs() -> None:
    results = call_each(Reader, (), "read", ["a", "hang"], Limits(seconds=10_000), children=1, at_once=1)
    assert next(results) == "A"
    results.close()


def test_children_that_cannot_start_end_it() -> None:
    with pytest.raises(ChildFailed, match="no such source"):
        list(call_each(Reader, (True,), "read", ["a", "b"], Limits(), children=2, at_once=1))


def test_nothing_to_do_starts_nothing() -> None:
    assert list(call_each(Reader, (True,), "read", [], Limits(), children=1, at_once=1)) == []
