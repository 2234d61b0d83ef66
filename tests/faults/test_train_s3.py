"""DeepSpeed on two gloo ranks inside Ray Train, data and checkpoints on an S3 endpoint, a rank killed in the middle."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.faults.test_s3 import SECRET, credentials, endpoint, fetch, s3, secrets_in
from tests.faults.training_runs import finish, kill_rank, start_training, tiny_toml
from tests.training.gloo_ranks import run_ranks
from tests.training.tiny_runs import make_data, result, rows, run_tiny

__all__ = ["endpoint"]  # a fixture

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
    pytest.mark.skipif(shutil.which("ninja") is None or shutil.which("g++") is None, reason="no compiler"),
]
ZERO_2 = {"name": "deepspeed", "zero_stage": 2}


def test_zero_2_on_s3_survives_a_kill_and_goes_on_with_torch(endpoint: tuple[str, int], tmp_path: Path) -> None:
    data, calm, folder = make_data(tmp_path / "data"), tmp_path / "calm", tmp_path / "pace"
    run_ranks(data, calm, 2, tmp_path / "ranks", max_steps=40, engine=ZERO_2)

    url = f"http://{endpoint[0]}:{endpoint[1]}"
    store = s3(url)
    store.mkdir("training")
    store.put(data + "/", "training/data/", recursive=True)
    folder.mkdir()
    logs = tempfile.mkdtemp(prefix="r")  # short: Ray puts sockets below it
    environment = credentials(url) | {"RAY_TMPDIR": logs}
    command = ["--recipe", tiny_toml(tmp_path), "--data", "s3://training/data", "--output", "s3://training/out"]
    command += ["--device", "cpu"]
    process = start_training(
        *command,
        *("--launcher", "ray", "--num-workers", 2, "--engine", "deepspeed", "--max-steps", 40),
        **environment,
        PACED_STEP="21",
        PACED_FOLDER=str(folder),
    )
    kill_rank(1, folder, process)
    printed = finish(process)
    assert "start again from the last checkpoint" in printed
    there = fetch(url, "s3://training/out", tmp_path / "there")
    assert rows(there) == rows(calm)
    assert result(there) == result(calm)

    # One rank, another engine: as if it went on from the checkpoint of the undisturbed run, to the bit.
    alone = start_training(*command, "--launcher", "local", "--engine", "torch", **environment)
    alone_printed = finish(alone)
    assert "goes on after step 40" in alone_printed
    run_tiny(data, calm)
    there = fetch(url, "s3://training/out", tmp_path / "at-the-end")
    assert [row["step"] for row in rows(there)] == list(range(1, 49))
    assert rows(there) == rows(calm)
    assert result(there) == result(calm)

    assert SECRET not in printed + alone_printed
    assert not secrets_in(tmp_path)
    assert list(Path(logs).rglob("*.log")), "Ray's logs are there, and are looked at"
    assert not secrets_in(Path(logs))
    shutil.rmtree(logs, ignore_errors=True)
