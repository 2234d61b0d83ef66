"""A job on an output that another process writes to: refused, with the name of the other, and nothing is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_dataset import make_dataset
from trackmill.jobs import make_sidecar, mine_proposals, train
from trackmill.pipeline.storage.output_lock import NAME, locked


def test_mining_into_an_output_that_is_mined_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    output = tmp_path / "out"
    words = ["--input", str(tmp_path / "a.png"), "--output", str(output), "--executor", "inline"]
    with locked(str(output), "mine"):  # as older versions hold it
        assert mine_proposals.main(words) == 1
        assert "out is being written to by another process (job mine, process " in capsys.readouterr().err
        assert [path.name for path in output.iterdir()] == [NAME]
        assert mine_proposals.main([*words, "--plan-only"]) == 0
    assert mine_proposals.main(words) == 0
    assert not (output / NAME).exists()


def test_training_into_a_run_that_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    run = tmp_path / "run"
    words = ["--recipe", "masa_lite0", "--data", layout.root, "--output", str(run), "--max-steps", "1"]
    words += [
        "--set",
        "data.batch_size=2",
        "--set",
        "data.workers=0",
    ]
    with locked(str(run), "train"):
        code = train.main([*words, "--set", "views.size=64"])
        captured = capsys.readouterr()
        assert code == 1, captured
        assert "run is being written to by another process (job train, process " in captured.err
        assert [path.name for path in run.iterdir()] == [NAME]


def test_a_sidecar_that_is_being_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    words = [layout.root, "chains", "--executor", "inline"]
    with locked(layout.sidecar("chains"), "sidecar"):
        assert make_sidecar.main(words) == 1
        assert "chains is being written to by another process (job sidecar" in capsys.readouterr().err
    assert make_sidecar.main(words) == 0
