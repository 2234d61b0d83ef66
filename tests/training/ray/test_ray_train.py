"""Ray Train around the loop: which failure is told, what is not tried again, how it stops. Kills: tests/faults."""

from __future__ import annotations

import io
import pickle
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from tests.faults.training_runs import finish, kill, standing_still, start_training, tiny_toml
from tests.training.gloo_ranks import run_ranks
from tests.training.tiny_runs import make_data, result, rows, run_tiny, tiny_recipe
from trackmill.pipeline.console.exit_codes import ExitCode, exit_code_of
from trackmill.pipeline.training.ray import ray_train
from trackmill.pipeline.training.ray.ray_train import reason, run_ray
from trackmill.pipeline.training.ray.ray_worker import RankFailed, Wire
from trackmill.pipeline.training.recipe import effective
from trackmill.schemas.config import ConfigError


class FakeDesk:
    """Keeps what an actor would be told; calls look as those of an actor."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @property
    def say(self) -> Any:
        return type("Call", (), {"remote": staticmethod(self.texts.append)})


DEAD = WorkerHealthCheckFailedError("health check failed", RayActorError())
BROKEN = RankFailed("RuntimeError: connection closed by peer")
OTHER = RankFailed("OtherRankFailed: rank 0: OSError: disk full", collateral=True)
FULL = RankFailed("OSError: disk full", code=ExitCode.STORAGE)
WRONG = RankFailed("step-00000008/model.safetensors is damaged", final=True, code=ExitCode.MISTAKE)
BUG = RankFailed(
    "ValueError: not enough values to unpack", final=True, code=None, traceback="Traceback: the rank's own"
)


@pytest.mark.parametrize(
    ("failures", "beginning"),
    [
        pytest.param({0: BROKEN, 1: DEAD}, "rank 1: its process is gone", id="a death explains broken connections"),
        pytest.param({0: FULL, 1: OTHER}, "rank 0: OSError: disk full", id="others wait for rank 0"),
        pytest.param({1: OTHER, 2: BROKEN}, "rank 2: RuntimeError: connection", id="anything before a consequence"),
        pytest.param({0: DEAD, 3: WRONG}, "rank 3: step-00000008/model", id="what is final before all"),
        pytest.param({2: BROKEN, 1: BROKEN}, "rank 1: RuntimeError", id="the lowest rank"),
        pytest.param({0: TimeoutError("no answer\nfor long")}, "rank 0: TimeoutError: no answer", id="one line"),
    ],
)
def test_the_failure_that_explains_the_others_is_told(failures: dict[int, Exception], beginning: str) -> None:
    assert str(reason(failures)).startswith(beginning)
    assert "\n" not in str(reason(failures))


def test_failures_travel_between_processes() -> None:
    there = pickle.loads(pickle.dumps(WRONG))
    assert (str(there), there.final, there.code, there.collateral) == (WRONG.text, True, ExitCode.MISTAKE, False)


@pytest.mark.parametrize(
    ("failure", "code"),
    [(FULL, ExitCode.STORAGE), (WRONG, ExitCode.MISTAKE), (BROKEN, ExitCode.FAILED), (BUG, None)],
)
def test_a_bug_of_a_rank_is_nobodys_mistake(failure: RankFailed, code: ExitCode | None) -> None:
    error = ray_train._for_people(reason({3: failure}))
    assert exit_code_of(error) == code
    assert str(error) == f"rank 3: {failure.text}"
    assert ("the rank's own" in "".join(traceback.format_exception(error))) == (code is None)


def test_what_is_final_ends_the_run_and_the_rest_is_tried_again() -> None:
    desk = FakeDesk()
    failures = ray_train._Failures(desk, allowed=1)
    with pytest.raises(RankFailed, match="rank 1: step-00000008"):
        failures.after_exception(None, {1: WRONG})
    assert not desk.texts
    failures.after_exception(None, {0: BROKEN, 1: DEAD})
    assert len(desk.texts) == 1
    assert "rank 1: its process is gone" in desk.texts[0]
    assert "time 1 of 1" in desk.texts[0]
    with pytest.raises(RankFailed, match=r"rank 0: RuntimeError.*failed 2 times without a new checkpoint in between"):
        failures.after_exception(None, {0: BROKEN})
    assert len(desk.texts) == 1


class TakenBack(RayActorError):
    """As Ray reports the death of an actor whose machine the cluster has taken back with notice."""

    preempted = True


def test_machines_taken_back_do_not_count_and_a_checkpoint_makes_up_for_failures() -> None:
    desk, times = FakeDesk(), iter(range(1000))
    failures = ray_train._Failures(desk, allowed=1, clock=lambda: next(times))
    for _ in range(5):  # Ray looks at the ranks several times while they end
        failures.after_exception(None, {0: BROKEN, 1: WorkerHealthCheckFailedError("health check failed", TakenBack())})
    assert desk.texts == [
        "the cluster takes a machine back: all ranks start again from the last checkpoint elsewhere\n"
    ]
    for _ in range(3):
        failures.after_exception(None, {0: BROKEN})
        failures.after_report(None, [{"step": 8}], None)
    failures.after_exception(None, {0: FULL, 1: OTHER})
    assert "time 1 of 1 since it was saved" in desk.texts[-1]
    with pytest.raises(RankFailed, match="disk full; the ranks failed 2 times") as caught:
        failures.after_exception(None, {0: FULL, 1: OTHER})
    assert caught.value.code is ExitCode.STORAGE
    endless = ray_train._Failures(desk, allowed=-1)
    for _ in range(50):
        endless.after_exception(None, {0: BROKEN})


def test_what_rank_0_says_is_sent_by_lines_and_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-seen")
    desk, log = FakeDesk(), io.StringIO()
    wire = Wire(desk, log, terminal=True)
    assert wire.isatty()
    print("key not-to-be-seen", file=wire)
    wire.write("half ")
    assert desk.texts == ["key ***\n"]
    wire.write("a line")
    wire.flush()
    assert desk.texts == ["key ***\n", "half a line"]
    assert log.getvalue().endswith("half a line")


def test_a_machine_that_is_too_small_is_a_mistake_and_a_cluster_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe("/data")
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": True}, {"Alive": False}])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    each = {"CPU": 1.0, "GPU": 1.0}
    with pytest.raises(ConfigError, match="4 ranks need 4 CPUs, of which there are 2 and 4 GPUs, of which there are 0"):
        list(ray_train._notices(recipe, "/out", each, 4))
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    waiting, shared = ray_train._notices(recipe, "/out", each, 4)
    assert "waiting for machines" in waiting
    assert "2 machines: /out and /data must be the same shared folder" in shared
    assert not list(ray_train._notices(tiny_recipe("s3://b/data"), "s3://b/out", {"CPU": 1.0}, 2))


def test_ray_gives_out_gpus_by_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cuda:1: with Ray it is auto, cpu or cuda"):
        run_ray(tiny_recipe("/data"), str(tmp_path), num_workers=2, device="cuda:1")
    assert not ray.is_initialized()


def test_how_ray_runs_it_may_change_when_a_run_goes_on() -> None:
    assert effective(tiny_recipe("/data")) == effective(tiny_recipe("/data", ray={"max_failures": -1}))
    with pytest.raises(ConfigError, match=r"ray\.max_failures"):
        tiny_recipe("/data", ray={"max_failures": -2})


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_signal_to_the_driver_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    output, folder = tmp_path / "out", tmp_path / "pace"
    folder.mkdir()
    command = ["--recipe", tiny_toml(tmp_path), "--data", data, "--output", output, "--launcher", "ray"]
    command += ["--num-workers", 2, "--device", "cpu"]
    process = start_training(*command, PACED_STEP="21", PACED_FOLDER=str(folder))
    try:
        standing_still(folder, 2, process)
        process.send_signal(signal.SIGTERM)
        printed = _until(process, "stopping: this step is finished and saved")
        (folder / "go").touch()
    except BaseException:
        kill(process.pid)
        raise
    printed += finish(process, expect=130)
    assert "which is saved; the same command goes on" in printed
    assert (output / "checkpoints/step-00000021/checkpoint.json").exists()
    assert "goes on after step 21" in finish(start_training(*command))
    run_ranks(data, tmp_path / "calm", 2, tmp_path / "ranks")
    assert rows(output) == rows(tmp_path / "calm")
    assert result(output) == result(tmp_path / "calm")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_mistake_that_only_ranks_find_is_one_line_and_not_tried_again(tmp_path: Path) -> None:
    data, output = make_data(tmp_path / "data"), tmp_path / "out"
    run_tiny(data, output, max_steps=8)
    weights = output / "checkpoints/step-00000008/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)  # as long as before: the driver does not notice
    command = ["--recipe", tiny_toml(tmp_path), "--data", data, "--output", output, "--launcher", "ray"]
    printed = finish(start_training(*command, "--num-workers", 2, "--device", "cpu"), expect=2)
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: rank 0: no checkpoint of")
    assert "model.safetensors is damaged" in errors[0]
    assert "start again" not in printed
    assert "Traceback" not in printed


def _until(process: Any, text: str) -> str:
    """Read what a process prints up to a line with a text in it."""
    printed = ""
    reads: Callable[[], str] = process.stdout.readline
    while text not in printed:
        line = reads()
        assert line, f"it ended before {text!r}:\n{printed}"
        printed += line
    return printed
