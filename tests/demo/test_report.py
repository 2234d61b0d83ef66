"""The sentences of the report follow from the numbers, also where training did nothing or harm."""

from __future__ import annotations

from typing import Any

import pytest

from trackmill.pipeline.demo.report import verdict


def compared(**intervals: tuple[float, float] | None) -> dict[str, Any]:
    result = {
        name.replace("_", "@"): each and {"first": 70.0, "second": 70.0, "low": each[0], "high": each[1]}
        for name, each in intervals.items()
    }
    return {"settings": {"against": {"intervals": result}}}


@pytest.mark.parametrize(
    ("intervals", "words"),
    [
        ({"rank1_5": (-1.0, 2.0), "rank1_20": (0.0, 0.0)}, "no clear difference: all 95 % intervals"),
        ({"rank1_5": (0.4, 2.0), "rank1_20": (0.1, 3.0)}, "moved rank-1 up 5 frames apart and up 20 frames apart."),
        ({"rank1_5": (-4.0, -2.0), "rank1_20": (-1.0, 3.0)}, "moved rank-1 down 5 frames apart; at the other gaps"),
        ({"rank1_5": None, "mAP_5": (1.0, 2.0)}, "Nothing could be compared"),
    ],
)
def test_the_verdict(intervals: dict[str, tuple[float, float] | None], words: str) -> None:
    assert words in verdict(compared(**intervals))


def test_where_there_is_no_room_it_says_so() -> None:
    result = compared(rank1_5=(-0.5, 0.0))
    assert "cannot be expected" in verdict(result)
    result["settings"]["against"]["intervals"]["rank1@5"] |= {"first": 97.1, "second": 98.1}
    assert "above 95 % already" in verdict(result)
