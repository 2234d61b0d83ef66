"""Whose files are remembered of somebody's own task: its own and what it imports from beside them."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest
import torch

from trackmill.pipeline.tasks.masa.task import MasaTask
from trackmill.pipeline.tasks.outside_code import changed_code, outside_code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module beside another, and a package of two modules."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "helper_of_mine.py").write_text("SCALE = 2\n")
    (tmp_path / "task_of_mine.py").write_text(
        "import torch\nimport helper_of_mine\n\n\nclass Mine(torch.nn.Linear):\n    pass\n"
    )
    package = tmp_path / "package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text("")
    (package / "task.py").write_text("from package_of_mine import losses\n\n\nclass Mine:\n    pass\n")
    for name in [*sys.modules]:
        if "_of_mine" in name:
            monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_files_beside_a_module_and_of_a_package(folder: Path) -> None:
    alone, packed = importlib.import_module("task_of_mine"), importlib.import_module("package_of_mine.task")
    found = outside_code([alone.Mine])
    assert {"task_of_mine", "helper_of_mine"} <= found.keys() and "package_of_mine.task" not in found
    assert found["helper_of_mine"] == hashlib.sha256(b"SCALE = 2\n").hexdigest()
    assert set(outside_code([packed.Mine])) == {"package_of_mine", "package_of_mine.losses", "package_of_mine.task"}
    (folder / "helper_of_mine.py").write_text("SCALE = 3\n")
    now = outside_code([alone.Mine])
    assert changed_code(found, now) == ["helper_of_mine"]
    assert not changed_code({}, now), "of what an older version saved nothing is known"


def test_what_is_installed_and_what_is_ours_does_not_count() -> None:
    assert outside_code([torch.nn.Linear, MasaTask, dict, Path]) == {}
