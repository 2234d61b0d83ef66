"""The limits that SECURITY.md promises are those of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.mining.settings import MineConfig

ROOT = Path(__file__).resolve().parents[2]
_ROW = re.compile(r"^\| `([\w./]+)`(?: `(\w+)`)? \| ([\d.,]+)(?: (GiB|MiB))? \| ", re.MULTILINE)
_UNITS = {"": 1, "MiB": 1 << 20, "GiB": 1 << 30}


def value_of(place: str, constant: str) -> Any:
    if constant:
        return getattr(importlib.import_module("trackmill." + place.removesuffix(".py").replace("/", ".")), constant)
    section, key = place.split(".")
    settings = {"run": MineConfig().run, "read": MineConfig().read, "data": DataSettings(url="x", batch_size=1)}
    return getattr(settings[section], key)


def test_the_table_of_limits() -> None:
    found = _ROW.findall((ROOT / "SECURITY.md").read_text())
    assert len(found) > 20
    for place, constant, number, unit in found:
        assert value_of(place, constant) == float(number.replace(",", "")) * _UNITS[unit], (place, constant)
