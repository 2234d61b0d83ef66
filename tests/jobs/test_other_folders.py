"""What one job wrote is never overwritten by another, and somebody's own code is not called a bug of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.make_media import make_pictures
from trackmill.jobs import mine_proposals

ROOT = Path(__file__).resolve().parents[2]

PARTS = """
import numpy as np
from trackmill.models.proposers.base import Proposer
from trackmill.schemas.media import ProposalSet


class Wide(Proposer):
    name, version = "wide", 1

    def propose(self, frames):
        boxes = np.array([[0, 0, 9e4, 9]], "f4")
        return [ProposalSet(boxes=boxes, scores=np.ones(1, "f4"), masks=[None]) for _ in frames]


class Bug(Wide):
    name = "bug"

    def propose(self, frames):
        raise KeyError("nothing")


class BuildBug(Wide):
    name = "build-bug"

    def __init__(self, config):
        raise RuntimeError("mine alone")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "in", 1, 40, 60)
    (tmp_path / "wide_parts.py").write_text(PARTS)
    return tmp_path


def mine(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / "mine_proposals.py"), "--input", str(folder / "in")]
    command += ["--output", str(folder / "out"), "--executor", "inline", *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def test_a_proposer_that_breaks_its_contract_ends_the_run(folder: Path) -> None:
    done = mine(folder, "--proposer", "wide_parts:Wide")
    assert done.returncode == 1
    assert "proposer wide: box 0" in done.stderr and "leaves its frame of 40 x 60" in done.stderr


def test_a_run_of_which_nothing_is_left_is_not_fine(folder: Path) -> None:
    done = mine(folder, "--proposer", "wide_parts:Bug")
    assert done.returncode == 3
    assert "nothing was mined: every item is quarantined" in done.stdout


def test_somebodys_own_code_is_named(folder: Path) -> None:
    done = mine(folder, "--proposer", "wide_parts:BuildBug")
    assert done.returncode == 1
    assert "RuntimeError: mine alone" in done.stderr and "wide_parts.py:" in done.stderr
    assert "bug in Trackmill" not in done.stderr


def test_a_data_set_is_not_mined_into_a_training_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "config.json").write_text(json.dumps({"task": "masa", "name": "run"}))
    words = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--executor", "inline"]
    assert mine_proposals.main(words) == 2
    assert "is a training run" in capsys.readouterr().err


def test_options_are_not_abbreviated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mine_proposals.main(["--inp", str(folder / "in"), "--output", str(folder / "out")]) == 2
    assert "--inp" in capsys.readouterr().err
