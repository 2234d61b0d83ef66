"""Pictures that are not numbered from 1 get the rows that are theirs."""

from __future__ import annotations

import pytest

from trackmill.pipeline.formats.frame_numbers import FramesDoNotFit, row_shift


@pytest.mark.parametrize(
    ("numbers", "rows", "shift"),
    [
        pytest.param(range(1, 6), range(1, 6), 0, id="as published"),
        pytest.param(range(1, 6), range(1, 99), 0, id="a copy that lacks the end"),
        pytest.param([1, 2, 5], [1, 5], 0, id="with gaps"),
        pytest.param([0, 2, 4], [0, 4], 0, id="with gaps, from 0"),
        pytest.param(range(5), range(1, 6), 1, id="from 000000, rows from 1"),
        pytest.param(range(5), [2, 3], 1, id="from 000000, not every frame has rows"),
        pytest.param(range(5), range(5), 0, id="both from 0"),
        pytest.param(range(5), [], 1, id="from 000000 without rows"),
        pytest.param(range(100, 105), range(1, 6), -99, id="from 000100, rows from 1"),
        pytest.param(range(100, 105), range(100, 105), 0, id="both from 100"),
        pytest.param(range(301, 601), range(1, 601), 0, id="the second half, with the rows of both"),
        pytest.param(range(2, 102), range(2, 101), 0, id="the first picture is missing"),
        pytest.param([], [1], 0, id="no pictures"),
    ],
)
def test_the_shift_between_names_and_rows(numbers: range, rows: range, shift: int) -> None:
    assert row_shift(list(numbers), rows) == shift


def test_rows_that_fit_neither() -> None:
    with pytest.raises(FramesDoNotFit, match="numbered 100 to 104 and rows say frames 7 to 20: neither"):
        row_shift(list(range(100, 105)), range(7, 21))
