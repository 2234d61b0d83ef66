"""Ranks that torchrun has started: what is asked of their environment, and that they train as any others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT, TIMEOUT_S, job_environment
from tests.training.gloo_ranks import run_ranks
from tests.training.tiny_runs import TINY, make_data, result, rows
from trackmill.jobs.train import JOB, choose_launcher
from trackmill.pipeline.training.rank_process import TORCHRUN
from trackmill.schemas.config import ConfigError

GIVEN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def options(*more: str) -> object:
    return JOB.read(["--recipe", "masa_lite0", "--output", "out", *more])


@pytest.mark.parametrize("missing", TORCHRUN)
def test_a_process_that_torchrun_has_not_started_is_refused(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GIVEN:
        monkeypatch.setenv(name, GIVEN[name]) if name != missing else monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=rf"--launcher torchrun: {missing} not set"):
        choose_launcher(options("--launcher", "torchrun"), 2)  # type: ignore[arg-type]


def test_the_number_of_ranks_is_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    assert choose_launcher(options("--launcher", "torchrun"), 2) == ("local", 2)  # type: ignore[arg-type]
    assert choose_launcher(options("--launcher", "torchrun", "--workers", "2"), 2) == ("local", 2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has started 2 processes; leave --workers away"):
        choose_launcher(options("--launcher", "torchrun", "--workers", "3"), 2)  # type: ignore[arg-type]
    assert choose_launcher(options("--launcher", "torchrun"), 1) == ("local", 1)  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_ranks_of_torchrun_train_as_two_of_our_own(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    run_ranks(data, tmp_path / "ours", 2, tmp_path / "ranks", max_steps=10)
    recipe = tmp_path / "tiny.toml"
    sections = "".join(
        f"[{name}]\n" + "".join(f"{key} = {str(value).lower()}\n" for key, value in section.items())
        for name, section in TINY.items()
        if name != "task"
    )
    recipe.write_text(f'task = "{TINY["task"]}"\n{sections}')
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "jobs" / "train.py"), "--launcher", "torchrun", "--recipe", str(recipe), "--data", data]
    command += ["--output", str(tmp_path / "theirs"), "--device", "cpu", "--max-steps", "10"]
    environment = job_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("weights: ") == 1, "rank 0 alone speaks"
    assert rows(tmp_path / "theirs") == rows(tmp_path / "ours")
    assert result(tmp_path / "theirs") == result(tmp_path / "ours")
