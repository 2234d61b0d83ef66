"""Two short runs under chaos, one of mining and one of training: seeds fixed, a handful of kills, and all is equal."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import mining, training

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3000)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: Ray puts sockets below it. It stays where a test fails."""
    path = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_mining(folder: Path) -> None:
    wish = mining.Wish(seed=17, minutes=20, kills=8, items=600)
    fine, kills, lines = mining.run(wish, folder)
    assert fine, "\n".join(lines)
    assert kills >= 5, "\n".join(lines)


def test_training(folder: Path) -> None:
    wish = training.Wish(seed=17, minutes=20, kills=6, steps=120, runs=("plain",))
    fine, kills, lines = training.run(wish, folder)
    assert fine, "\n".join(lines)
    assert kills >= 4, "\n".join(lines)
