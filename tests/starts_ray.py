"""Which files of tests start Ray, by their text: the process that hands out tests has not imported them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def starts_ray(file: str) -> bool:
    """Whether a file, named relative to the repository, has a test with the mark `ray`."""
    path = ROOT / file
    return path.is_file() and "pytest.mark.ray" in path.read_text()
