"""SIGKILL of a rank or the driver of a training run on Ray, and other numbers of ranks: it ends as if undisturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.faults.test_kill import free_port, two_nodes
from tests.faults.training_runs import finish, kill, kill_rank, standing_still, start_training, tiny_toml
from tests.runs import ROOT, TIMEOUT_S, job_environment, wait_for
from tests.training.gloo_ranks import run_ranks
from tests.training.tiny_runs import make_data, result, rows
from trackmill.pipeline.training.prepare import starting_point

__all__ = ["two_nodes"]  # a fixture

TWO = ("--launcher", "ray", "--num-workers", 2, "--device", "cpu")
MASA_SMALL = [
    *("--recipe", "masa_lite0", "--max-steps", 6, "--checkpoint-every", 2),
    *("--set", "data.batch_size=4", "--set", "data.workers=1", "--set", "views.size=64"),
    *("--set", "telemetry.every=1", "--set", "telemetry.tensorboard=false"),
    *("--set", "model.weights=''", "--set", "model.backbone_weights=''"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_ranks(data, folder / "out", 2, folder / "ranks")
    return folder / "out"


def check_same(output: Path, undisturbed: Path) -> None:
    """Each step once, with the same numbers to the last bit, and the same weights."""
    found = rows(output)
    assert [row["step"] for row in found] == list(range(1, 49))
    assert found == rows(undisturbed)
    assert result(output) == result(undisturbed)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rank_is_killed(data: str, undisturbed: Path, tmp_path: Path) -> None:
    """The run goes on by itself; Ray, restart and all change no bit."""
    output, folder = tmp_path / "out", tmp_path / "pace"
    folder.mkdir()
    process = start_training(
        *("--recipe", tiny_toml(tmp_path), "--data", data, "--output", output, *TWO),
        PACED_STEP="21",
        PACED_FOLDER=str(folder),
    )
    pids = kill_rank(1, folder, process)
    printed = finish(process)
    assert "rank 1: its process is gone" in printed
    assert "start again from the last checkpoint (time 1 of 3 since it was saved)" in printed
    assert "train: step 17/48" in printed, "it goes on after the checkpoint, and what rank 0 says is seen"
    assert "train: step 48/48 (100%)" in printed
    assert "Traceback" not in printed
    assert "Reporting" not in printed, "Ray's own news are left out"
    check_same(output, undisturbed)
    assert not any(psutil.pid_exists(pid) for pid in pids), "ranks are left over"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_driver_is_killed(data: str, undisturbed: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "out", tmp_path / "pace"
    folder.mkdir()
    command = ["--recipe", tiny_toml(tmp_path), "--data", data, "--output", output, *TWO]
    process = start_training(*command, PACED_STEP="21", PACED_FOLDER=str(folder))
    try:
        pids = standing_still(folder, 2, process)
    finally:
        kill(process.pid)
    process.communicate()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the ranks to end with their driver")
    found = starting_point(str(output), "auto")
    assert found is not None
    assert found.step == 16
    printed = finish(start_training(*command))
    assert "goes on after step 16" in printed
    check_same(output, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_of_two_ranks_goes_on_with_one_and_with_four(data: str, undisturbed: Path, tmp_path: Path) -> None:
    """The samples of each step stay the same. Losses do not, to the bit: batch norm and noise are each rank's own."""
    for world in (1, 4):
        output = tmp_path / f"on-{world}"
        run_ranks(data, output, 2, tmp_path / f"two-{world}", max_steps=24)
        before = rows(output)
        assert before == rows(undisturbed)[:24]
        run_ranks(data, output, world, tmp_path / f"ranks-{world}")
        after = rows(output)
        assert after[:24] == before
        assert [row["keys"] for row in after] == pytest.approx([row["keys"] for row in rows(undisturbed)])
        document = json.loads((output / "checkpoints/step-00000048/checkpoint.json").read_text())
        assert document["world"] == world
        assert sum(row["loss"] for row in after[24:]) < sum(row["loss"] for row in after[:12])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_masa_with_loader_workers_survives_a_killed_rank(data: str, tmp_path: Path) -> None:
    command = ["--data", data, *MASA_SMALL, *TWO]
    finish(start_training(*command, "--output", tmp_path / "calm", module="trackmill.jobs.train"))
    output = tmp_path / "killed"
    process = start_training(*command, "--output", output, module="trackmill.jobs.train")
    try:
        wait_for(lambda: (output / "checkpoints/step-00000002/checkpoint.json").exists(), "a checkpoint", process)
        family = psutil.Process(process.pid).children(recursive=True)
        ranks = [each for each in family if each.is_running() and "RayTrainWorker" in " ".join(each.cmdline())]
        assert len(ranks) == 2
        loaders = [child for rank in ranks for child in rank.children(recursive=True)]
        assert loaders, "samples are read by processes of the ranks"
        kill(ranks[0].pid)
    except BaseException:
        kill(process.pid)
        raise
    printed = finish(process)
    assert "start again from the last checkpoint" in printed
    here, there = rows(tmp_path / "calm"), rows(output)
    assert [row["step"] for row in here] == list(range(1, 7))
    assert here == there
    assert result(tmp_path / "calm") == result(output)
    wait_for(lambda: not any(each.is_running() for each in loaders), "loader workers to end with their rank")


@pytest.fixture
def pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ranks of all nodes that are started after this stand still in step 21."""
    folder = tmp_path / "pace"
    folder.mkdir()
    monkeypatch.setenv("PACED_STEP", "21")
    monkeypatch.setenv("PACED_FOLDER", str(folder))
    return folder


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_submitted_job_loses_a_machine_and_gets_another(
    data: str, undisturbed: Path, tmp_path: Path, pace: Path, two_nodes: tuple[str, str, subprocess.Popen[bytes]]
) -> None:
    """One rank on each of two nodes; the run waits until there are two again."""
    address, dashboard, second = two_nodes
    ray = str(Path(sys.executable).parent / "ray")
    output = tmp_path / "out"
    command = [ray, "job", "submit", "--address", dashboard, "--working-dir", ".", "--", sys.executable, "-m"]
    command += ["trackmill.jobs.train", "--recipe", tiny_toml(tmp_path), "--data", data, "--output", str(output)]
    command += ["--num-workers", "2", "--device", "cpu"]
    environment = job_environment(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2")
    submitted = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    )
    third = None
    try:
        pids = standing_still(pace, 2, submitted)
        family = [each.pid for each in psutil.Process(second.pid).children(recursive=True)]
        assert set(pids) & set(family), "a rank runs on the second node"
        (pace / "go").touch()
        for pid in family:
            kill(pid)
        start = [ray, "start", "--block", "--num-cpus=1", "--disable-usage-stats", f"--address={address}"]
        start += [f"--dashboard-agent-listen-port={free_port()}"]
        with open(tmp_path / "third.log", "wb") as log:
            third = subprocess.Popen(start, stdout=log, stderr=log, env=job_environment(), start_new_session=True)
        printed = submitted.communicate(timeout=2 * TIMEOUT_S)[0]
    finally:
        kill(submitted.pid)
        if third is not None:
            for child in psutil.Process(third.pid).children(recursive=True):
                kill(child.pid)
            kill(third.pid)
            third.wait()
    assert submitted.returncode == 0, printed
    assert "the cluster has 2 machines" in printed
    assert "start again from the last checkpoint" in printed
    assert "weights: " in printed
    check_same(output, undisturbed)
