"""Summing up takes the same memory for three times as many receipts."""

from __future__ import annotations

import pytest

from tests.benchmarks.scale_receipts import STEPS, in_a_process, write_receipts

_SIZES = (300_000, 900_000)
_MOST_MB = 200
"""As objects, 600,000 rows more took 800 MB more; a row group and a few batches are what may come on top."""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("receipts")
    for items in _SIZES:
        write_receipts(str(folder / str(items)), items)
    return [str(folder / str(items)) for items in _SIZES]


@pytest.mark.slow
@pytest.mark.parametrize("step", [step for step in STEPS if step != "manifest"])
def test_memory_does_not_grow_with_the_receipts(step: str, roots: list[str]) -> None:
    few, many = (in_a_process(step, root)["peak_mb"] for root in roots)
    assert many - few < _MOST_MB, (few, many)
