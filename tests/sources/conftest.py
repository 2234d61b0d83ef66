"""What the tests of sources share: settings, and copying a folder into the in-memory file system."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from trackmill.pipeline.sources.base import ReadSettings


@pytest.fixture
def settings() -> ReadSettings:
    """Small frames and short clips, so that scaling and cutting both happen."""
    return ReadSettings(longest_side=48, frames_per_clip=4, label_fps=6)


@pytest.fixture
def to_memory() -> Iterator[Callable[[Path], str]]:
    """Copies a folder to `memory://` and gives its URL; everything is gone after the test."""
    memory = fsspec.filesystem("memory")

    def copy(folder: Path) -> str:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                memory.pipe_file(f"/media/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return "memory://media"

    yield copy
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
