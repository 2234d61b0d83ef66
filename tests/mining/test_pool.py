"""Decisions of the pool that need no cluster; the rest is shown by `tests/faults/test_kill.py`."""

from __future__ import annotations

import pytest

from trackmill.pipeline.mining.pool import recycle_after
from trackmill.pipeline.mining.settings import RunSettings


@pytest.mark.parametrize(
    ("asked", "gpus_each", "expected"),
    [
        (-1, 0, 2000),
        (-1, 1, 0),  # its GPU would wait while another process loads the model
        (-1, 0.5, 0),
        (0, 0, 0),
        (7, 0, 7),
        (7, 1, 7),  # asked for is asked for
    ],
)
def test_when_actors_are_replaced(asked: int, gpus_each: float, expected: int) -> None:
    assert recycle_after(RunSettings(recycle_after=asked), gpus_each) == expected
