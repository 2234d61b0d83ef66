"""The loss that the page for researchers shows: it trains, and the page's words about it hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.documents.blocks import blocks
from tests.runs import TIMEOUT_S, job_environment
from tests.training.tiny_runs import make_data, rows
from trackmill.jobs.train import main
from trackmill.pipeline.weights import build_model

PAGE = "docs/people/research.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's folder with the module and the recipe of the page."""
    (module,) = [block.text for block in blocks("python") if block.document == PAGE and "MyTask" in block.text]
    (recipe,) = [block.text for block in blocks("toml") if block.document == PAGE and "MyTask" in block.text]
    (tmp_path / "my_loss.py").write_text(module)
    (tmp_path / "mine.toml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_loss", raising=False)
    return tmp_path


def train(folder: Path, steps: int, *changes: str) -> list[dict[str, Any]]:
    """Train so many steps in all, with changes of the recipe; the rows of all steps."""
    data = folder / "data"
    if not data.exists():
        make_data(data)
    words = ["--recipe", "mine.toml", "--data", str(data), "--output", str(folder / "out"), "--device", "cpu"]
    small = ["views.size=64", "data.batch_size=2", "data.workers=0", "schedule.warmup_steps=0", "optim.lr=0.02"]
    small += ["telemetry.tensorboard=false", "model.weights="]
    for value in (*small, *changes):
        words += ["--set", value]
    threads = torch.get_num_threads()
    try:
        assert main([*words, "--max-steps", str(steps)]) == 0
    finally:
        torch.set_num_threads(threads)
    return rows(folder / "out")


def test_it_trains(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = train(folder, 4)
    assert "use them: trackmill track --model masa_lite0 --weights " in capsys.readouterr().out
    assert isinstance(build_model("masa_lite0", str(folder / "out" / "final" / "model.safetensors")), torch.nn.Module)
    assert len(found) == 4 and sum(row["positives"] > 0 for row in found) > 1
    # Whoever has one object in sight has nothing to choose from, and nothing to learn.
    assert all((row["grad_norm"] > 0) == (row["loss"] > 0) for row in found)
    assert any(row["grad_norm"] > 0 for row in found)


def test_views_without_objects_are_no_mistake(folder: Path) -> None:
    found = train(folder, 8, "views.min_visible=1", "views.translate=0.3", "data.batch_size=1")
    assert len(found) == 8 and any(row["positives"] == 0 for row in found)
    assert all(row["loss"] == 0 for row in found if not row["positives"])


def test_a_run_that_goes_on_with_other_code_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(folder, 1)
    train(folder, 2)
    assert "the code of" not in capsys.readouterr().err
    with (folder / "my_loss.py").open("a") as file:
        file.write("\n# another loss\n")
    sys.modules.pop("my_loss")  # as in another process
    assert len(train(folder, 3)) == 3
    assert "the code of my_loss has changed since step 2 was saved" in capsys.readouterr().err


def test_a_clone_that_python_takes_for_the_package_is_named(tmp_path: Path) -> None:
    """A folder `trackmill` without `__init__.py`, as a clone is, comes first on Python's path."""
    root = Path(__file__).parents[2]
    (tmp_path / "trackmill").symlink_to(root)
    code = "from trackmill.jobs.main import main; import sys; sys.exit(main(['--version']))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=job_environment(PYTHONPATH=os.fspath(tmp_path)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (
        done.returncode == 2 and "for the package trackmill, since the folder around it is in PYTHONPATH" in done.stderr
    )
