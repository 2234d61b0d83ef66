"""The names of LVIS's classes stand in the order of its ids."""

from __future__ import annotations

from tests.fixtures import packed
from trackmill.models.detic.lvis_names import LVIS_NAMES


def test_the_names_are_those_of_the_reference_run() -> None:
    assert list(LVIS_NAMES) == packed.read_json("detic_r50/lvis_names.json")
