"""The Slurm scripts, run by a Slurm of one machine (`fake_slurm.py`): an array mines, torchrun and Ray train."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.training_runs import kill_rank, standing_still, tiny_toml
from tests.infra.fake_slurm import install
from tests.infra.manifests import INFRA, ROOT
from tests.make_media import make_pictures
from tests.runs import TIMEOUT_S, job_environment, mine, statuses, tars, wait_for
from tests.training.tiny_runs import make_data, result, rows, run_tiny

SLURM = INFRA / "slurm"
BIN = Path(os.environ.get("VIRTUAL_ENV", ROOT / ".venv")) / "bin"
RUN_OR_REQUEUE = """#!/bin/bash
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
set -euo pipefail
source infra/slurm/run_or_requeue.sh
id=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
run_or_requeue "$id" srun bash "$1" "$id"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment in which the programs are found."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    found = install(tmp_path / "bin")
    return job_environment(PATH=found["PATH"], TRACKMILL_BIN=str(BIN), FAKE_SLURM_TERM=str(tmp_path / "term"))


def sbatch(slurm: dict[str, str], *words: object, expect: int = 0) -> str:
    """Submit, wait for the end; returns what was printed."""
    command = [str(word) for word in ("sbatch", *words)]
    done = subprocess.run(
        command, env=slurm, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2 * TIMEOUT_S
    )
    assert done.returncode == expect, done.stdout
    return done.stdout


def test_a_job_that_is_stopped_goes_back_into_the_queue_and_on(slurm: dict[str, str], tmp_path: Path) -> None:
    """Both tasks of an array get the signal, save, end with 130, and come to their end the second time."""
    work, script = tmp_path / "work.sh", tmp_path / "job.sbatch"
    script.write_text(RUN_OR_REQUEUE)
    work.write_text(
        f"if [ -e {tmp_path}/saved-$1 ]; then echo went on >{tmp_path}/done-$1; exit 0; fi\n"
        f"trap 'touch {tmp_path}/saved-$1; exit 130' TERM; touch {tmp_path}/begun-$1\n"
        "while true; do sleep 0.05; done\n"
    )
    process = subprocess.Popen(["sbatch", "--array=1-2", script, work], env=slurm, cwd=ROOT)
    wait_for(lambda: len(list(tmp_path.glob("begun-*"))) == 2, "both tasks", process)
    (tmp_path / "term").touch()
    assert process.wait(timeout=TIMEOUT_S) == 0
    assert len(list(tmp_path.glob("saved-*"))) == len(list(tmp_path.glob("done-*"))) == 2


def stoppable(tmp_path: Path) -> tuple[Path, Path]:
    """A job, and its work: waits, ends with 130 at SIGTERM, and comes to its end the second time."""
    work, script = tmp_path / "work.sh", tmp_path / "job.sbatch"
    script.write_text(RUN_OR_REQUEUE)
    work.write_text(
        f"if [ -e {tmp_path}/saved ]; then touch {tmp_path}/done; exit 0; fi\n"
        f"trap 'touch {tmp_path}/saved; exit 130' TERM; touch {tmp_path}/begun\n"
        "while true; do sleep 0.05; done\n"
    )
    return script, work


@pytest.mark.parametrize("state", ["JobState=COMPLETING", "JobState=CANCELLED"])
def test_a_job_that_was_cancelled_stays_ended(slurm: dict[str, str], tmp_path: Path, state: str) -> None:
    process = subprocess.Popen(["sbatch", *stoppable(tmp_path)], env=slurm, cwd=ROOT)
    wait_for((tmp_path / "begun").exists, "the job", process)
    (tmp_path / "term.new").write_text(state)
    (tmp_path / "term.new").rename(tmp_path / "term")
    assert process.wait(timeout=TIMEOUT_S) == 130
    assert (tmp_path / "saved").exists() and not (tmp_path / "done").exists()


def test_a_job_whose_steps_are_preempted_goes_back_into_the_queue(slurm: dict[str, str], tmp_path: Path) -> None:
    """The signal goes to the steps alone."""
    slurm = {**slurm, "FAKE_SLURM_PREEMPT": str(tmp_path / "preempt")}
    process = subprocess.Popen(["sbatch", *stoppable(tmp_path)], env=slurm, cwd=ROOT)
    wait_for((tmp_path / "begun").exists, "the job", process)
    (tmp_path / "preempt").touch()
    assert process.wait(timeout=TIMEOUT_S) == 0
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_job_that_ends_by_itself_keeps_its_code_and_is_not_queued_again(
    slurm: dict[str, str], tmp_path: Path, code: int
) -> None:
    script, work = tmp_path / "job.sbatch", tmp_path / "work.sh"
    script.write_text(RUN_OR_REQUEUE)
    work.write_text(f"exit {code}\n")
    assert "queue" not in sbatch(slurm, script, work, expect=code)


@pytest.mark.slow  # four jobs
@pytest.mark.timeout(1800)
def test_an_array_mines_the_bytes_of_one_run(slurm: dict[str, str], tmp_path: Path) -> None:
    media, output, alone = tmp_path / "media", tmp_path / "out", tmp_path / "alone"
    make_pictures(media, count=12, height=120, width=160)
    options = ["--source", "auto", "--proposer", "graph", "--set", "shards.unit_frames=2"]
    printed = sbatch(slurm, "--array=1-3", SLURM / "mine-array.sbatch", "--input", media, "--output", output, *options)
    mine("--input", media, "--output", alone, *options, "--executor", "inline")
    assert statuses(output) == statuses(alone) and tars(output) == tars(alone)
    assert (output / "manifest" / "items.parquet").exists(), printed
    # Again: nothing is left to do.
    before = tars(output)
    sbatch(slurm, "--array=2,3", SLURM / "mine-array.sbatch", "--input", media, "--output", output, *options)
    assert tars(output) == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_torchrun_trains_on_two_nodes(slurm: dict[str, str], tmp_path: Path) -> None:
    data, output = make_data(tmp_path / "data"), tmp_path / "out"
    options = ["--recipe", tiny_toml(tmp_path), "--data", data, "--output", output, "--device", "cpu"]
    printed = sbatch(
        {**slurm, "RANKS_PER_NODE": "1", "OMP_NUM_THREADS": "1"}, SLURM / "train-torchrun.sbatch", *options
    )
    assert "step 48/48" in printed
    alone = tmp_path / "alone"
    run_tiny(data, alone)
    found, expected = rows(output), rows(alone)
    assert [row["step"] for row in found] == list(range(1, 49))
    assert [row["keys"] for row in found] == pytest.approx([row["keys"] for row in expected]), "the same samples"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_torchrun_job_that_is_stopped_saves_and_goes_on_by_itself(slurm: dict[str, str], tmp_path: Path) -> None:
    """Stopped in step 21, neither at a checkpoint nor at the end; it goes back into the queue, and on from there."""
    data, output, pace = make_data(tmp_path / "data"), tmp_path / "out", tmp_path / "pace"
    pace.mkdir()
    options = ["--recipe", tiny_toml(tmp_path), "--data", data, "--output", output, "--device", "cpu"]
    environment = {**slurm, "RANKS_PER_NODE": "2", "OMP_NUM_THREADS": "1"}
    environment |= {"PACED_STEP": "21", "PACED_FOLDER": str(pace)}
    words = [str(word) for word in ("sbatch", "--nodes=1", SLURM / "train-torchrun.sbatch", *options)]
    process = subprocess.Popen(
        words, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    standing_still(pace, 2, process)
    (tmp_path / "term").touch()
    time.sleep(2)  # the signal is on its way; were it late, the run would end in one go, and the words below be missing
    (pace / "go").touch()
    printed = process.communicate(timeout=2 * TIMEOUT_S)[0]
    assert process.returncode == 0, printed
    assert "stopped after step 21 of 48, which is saved" in printed and "goes back into the queue" in printed
    assert "goes on after step 21" in printed and "step 48/48" in printed
    assert [row["step"] for row in rows(output)] == list(range(1, 49))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_torchrun_starts_all_ranks_again_when_one_is_killed(slurm: dict[str, str], tmp_path: Path) -> None:
    """As the watchdog does with a rank that hangs: the job comes to its end without being submitted again."""
    data, output, pace = make_data(tmp_path / "data"), tmp_path / "out", tmp_path / "pace"
    pace.mkdir()
    options = ["--recipe", tiny_toml(tmp_path), "--data", data, "--output", output, "--device", "cpu"]
    environment = {**slurm, "RANKS_PER_NODE": "2", "OMP_NUM_THREADS": "1"}
    environment |= {"PACED_STEP": "21", "PACED_FOLDER": str(pace)}
    words = [str(word) for word in ("sbatch", "--nodes=1", SLURM / "train-torchrun.sbatch", *options)]
    process = subprocess.Popen(
        words, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    kill_rank(1, pace, process)
    printed = process.communicate(timeout=2 * TIMEOUT_S)[0]
    assert process.returncode == 0, printed
    assert "goes back into the queue" not in printed and "step 48/48" in printed
    assert [row["step"] for row in rows(output)] == list(range(1, 49))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_ray_inside_slurm_mines_and_trains_on_two_nodes_and_leaves_nothing(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    media, output, alone = tmp_path / "media", tmp_path / "out", tmp_path / "alone"
    make_pictures(media, count=8, height=120, width=160)
    shared = tmp_path / "shared"
    shared.mkdir()
    environment = {**slurm, "TRACKMILL_SHARED": str(shared)}
    del environment["RAY_AUTH_MODE"]
    cpus = "--cpus-per-task=1"
    options = ["--input", media, "--set", "shards.unit_frames=2"]
    printed = sbatch(
        environment,
        *(cpus, SLURM / "ray.sbatch", "jobs/mine_proposals.py", *options, "--output", output, "--workers", 2),
    )
    assert "done: 8 items" in printed
    mine(*options, "--output", alone, "--executor", "inline")
    assert tars(output) == tars(alone)
    data, run = make_data(tmp_path / "data"), tmp_path / "run"
    sbatch(
        {**environment, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"},
        *(cpus, SLURM / "ray.sbatch", "jobs/train.py", "--recipe", tiny_toml(tmp_path), "--data", data),
        *("--output", run, "--launcher", "ray", "--workers", 2, "--device", "cpu"),
    )
    assert result(run)
    assert not list(shared.iterdir()), "the token is gone"
