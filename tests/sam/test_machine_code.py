"""Machine code where nothing can be written, as in a container whose disk is read-only."""

from __future__ import annotations

import pytest

pytest.importorskip("numba", reason='needs pip install -e ".[sam]"')

import numba
import numpy as np
from numba.core.caching import CompileResultCacheImpl

from trackmill.models.sam.machine_code import machine_code


def doubled(values: np.ndarray) -> np.ndarray:
    return values * 2


def test_a_function_is_compiled_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(doubled)
    assert list(machine_code(doubled)(np.array([1, 2]))) == [2, 4]


def test_options_are_passed_on() -> None:
    compiled = machine_code(inline="always")(doubled)
    assert compiled.targetoptions["inline"] == "always" and compiled.targetoptions["nogil"]
