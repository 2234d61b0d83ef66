"""The loop with a task of its own: exact resumption after every kind of end, evaluation, losses that are no number."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.faults.training_runs import start_training, tiny_toml
from tests.runs import ROOT, job_environment, wait_for
from tests.training.tiny_runs import make_data, result, rewrite, rows, run_tiny, tiny_recipe
from tests.training.tiny_task import TinyModule, TinyTask
from trackmill.pipeline.export.source import from_run
from trackmill.pipeline.storage.documents import document_bytes
from trackmill.pipeline.tasks.base import Evaluation
from trackmill.pipeline.training.health import NonFinite, NothingLearnt
from trackmill.pipeline.training.launch import run_local
from trackmill.pipeline.training.prepare import begin, prepare_training, starting_point
from trackmill.pipeline.training.recipe import effective, stored_recipe
from trackmill.pipeline.training.telemetry.lines import read_lines
from trackmill.pipeline.weights import read_weights
from trackmill.schemas.config import ConfigError
from trackmill.schemas.errors import InputError, JobError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed")
    assert not run_tiny(data, output).interrupted
    return output


def counting(at: int, action: Callable[[], Any]) -> Callable[[], bool]:
    """Does something in the `at`-th forward pass, from 1."""
    calls = iter(range(1, 1 << 30))

    def poison() -> bool:
        if next(calls) == at:
            action()
        return False

    return poison


def test_a_run_has_a_row_for_every_step_and_learns(undisturbed: Path) -> None:
    found = rows(undisturbed)
    assert [row["step"] for row in found] == list(range(1, 49))
    assert all(row["loss"] == pytest.approx(row["fit"] + row["size"]) for row in found)
    assert sum(row["loss"] for row in found[-10:]) < sum(row["loss"] for row in found[:10]) / 2
    assert found[0]["lr"] == pytest.approx(0.05 * 0.001)
    assert found[3]["lr"] == pytest.approx(0.05)
    assert found[-1]["lr"] == pytest.approx(0.005)
    assert found[-1]["epoch"] == 12, "14 samples are four batches of four"
    card = json.loads((undisturbed / "final" / "card.json").read_text())
    assert card["step"] == 48
    assert card["data"]["samples"] == 14


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"optim": {"accumulate": 2}}, id="two micro batches a step"),
        pytest.param({"ema": {"decay": 0.9}, "optim": {"name": "adamw", "lr": 0.01}}, id="averaged weights, adamw"),
    ],
)
def test_forty_steps_and_eight_more_are_forty_eight(changes: dict[str, Any], data: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_tiny(data, whole, **changes)
    first = run_tiny(data, parts, max_steps=40, **changes)
    assert (first.step, first.total_steps, first.interrupted) == (40, 40, False)
    assert result(parts) != result(whole)
    second = run_tiny(data, parts, **changes)
    assert second.step == 48
    assert rows(parts) == rows(whole)
    assert result(parts) == result(whole)
    last = "checkpoints/step-00000048/checkpoint.json"
    assert json.loads((parts / last).read_text())["files"] == json.loads((whole / last).read_text())["files"]


def test_a_card_that_rotted_is_written_again_and_a_config_that_rotted_keeps_nobody_from_going_on(
    data: str, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    begin(prepare_training(tiny_recipe(data), str(tmp_path / "run"), 1, build=False))
    card, config = tmp_path / "run/final/card.json", tmp_path / "run/config.json"
    whole = card.read_bytes()
    card.write_bytes(whole.replace(b'"step": 48', b'"step": 58'))
    config.write_bytes(config.read_bytes().replace(b'"lr": 0.05', b'"lr": 0.15'))
    plan = prepare_training(tiny_recipe(data), str(tmp_path / "run"), 1, build=False)
    assert not plan.finished
    assert "final/card.json is damaged: what it says is not what was written" in plan.notices[0]
    with pytest.raises(InputError, match=r"config\.json is damaged.*the command that trained it writes it again"):
        from_run(str(tmp_path / "run"), "final")
    begin(plan)
    with pytest.raises(InputError, match=r"card\.json is damaged.*writes it again from the last checkpoint"):
        from_run(str(tmp_path / "run"), "final")
    run_tiny(data, tmp_path / "run")
    assert card.read_bytes() == whole
    assert config.read_bytes() == document_bytes(stored_recipe(tiny_recipe(data)))


def test_weights_of_a_result_that_rotted_are_refused_and_written_again(
    data: str, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    weights = run / "final/model.safetensors"
    read_weights(weights)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=r"final/model\.safetensors: damaged or replaced: .* the card beside it says"):
        read_weights(weights)
    plan = prepare_training(tiny_recipe(data), str(run), 1, build=False)
    assert not plan.finished and "is not what its card says: this run writes it again" in plan.notices[0]
    run_tiny(data, run)
    assert weights.read_bytes() == whole
    assert prepare_training(tiny_recipe(data), str(run), 1, build=False).finished


@pytest.mark.parametrize("name", ["checkpoint.json", "optimizer.safetensors"])
def test_a_run_goes_on_from_the_checkpoint_before_one_that_rotted_and_says_so(
    name: str, data: str, undisturbed: Path, tmp_path: Path
) -> None:
    run_tiny(data, tmp_path, max_steps=24)
    path = tmp_path / "checkpoints/step-00000024" / name
    rotten = bytearray(path.read_bytes())
    rotten[len(rotten) // 2] ^= 1
    path.write_bytes(rotten)
    said: list[str] = []
    run_local(tiny_recipe(data), str(tmp_path), device="cpu", notice=said.append)
    (line,) = said
    assert line.startswith("passed over a checkpoint: ") and f"step-00000024/{name}" in line
    assert rows(tmp_path) == rows(undisturbed)
    assert result(tmp_path) == result(undisturbed)


def test_another_number_of_loader_workers_changes_nothing(data: str, undisturbed: Path, tmp_path: Path) -> None:
    run_tiny(data, tmp_path, max_steps=40)
    run_tiny(data, tmp_path, data={"workers": 2})
    assert rows(tmp_path) == rows(undisturbed)
    assert result(tmp_path) == result(undisturbed)


def test_other_threads_may_round_otherwise_and_that_is_said(data: str, tmp_path: Path) -> None:
    run_tiny(data, tmp_path, max_steps=4)
    run_tiny(data, tmp_path, max_steps=6)
    path = tmp_path / "checkpoints/step-00000006/checkpoint.json"
    versions = json.loads(path.read_text())["versions"]
    threads = versions["threads"]
    rewrite(path, versions={**versions, "threads": threads + 3}, world=8)
    run_tiny(data, tmp_path, max_steps=8)
    told = [row["text"] for row in read_lines(str(tmp_path / "events.jsonl")) if "rounding" in row["text"]]
    assert told == [
        f"saved with threads {threads + 3}, now {threads}, ranks 8, now 1: results may differ by rounding from those "
        "of one go"
    ]


def test_a_run_keeps_the_streams_it_began_with(data: str, undisturbed: Path, tmp_path: Path) -> None:
    """Other numbers are chosen where there are more ranks, or by a newer version."""
    run_tiny(data, tmp_path, max_steps=16, data={"streams": 2})
    kept, digest = effective(tiny_recipe(data))
    path = tmp_path / "checkpoints/step-00000016/checkpoint.json"
    rewrite(path, recipe=kept, digest=digest)
    run_tiny(data, tmp_path)
    document = json.loads((tmp_path / "checkpoints/step-00000048/checkpoint.json").read_text())
    assert document["loader"]["streams"] == 2
    run_tiny(data, tmp_path / "two", data={"streams": 2})
    assert rows(tmp_path) == rows(tmp_path / "two") != rows(undisturbed)


def test_a_killed_process_leaves_no_trace(data: str, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ["--recipe", tiny_toml(tmp_path), "--data", data, "--output", output, "--launcher", "local"]
    command += ["--set", "telemetry.every=1", "--max-steps", "48"]
    # Stands still in step 21, so that the kill comes in the middle of the run however fast the machine is.
    process = start_training(*command, PACED_STEP="21", PACED_FOLDER=str(tmp_path))
    try:
        wait_for(lambda: output.exists() and len(_lines(output)) >= 20, "20 steps", process)
    finally:
        process.kill()
        process.communicate()
    assert starting_point(str(output), "auto").step == 16
    run_tiny(data, output)
    assert rows(output) == rows(undisturbed)
    assert result(output) == result(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_finishes_the_step_and_saves(
    data: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(TinyTask, "poison", staticmethod(counting(13, lambda: signal.raise_signal(number))))
    before = signal.getsignal(number)
    outcome = run_tiny(data, tmp_path)
    assert outcome.interrupted
    assert outcome.step == 13
    assert not outcome.result
    assert signal.getsignal(number) is before
    assert (tmp_path / "checkpoints/step-00000013/checkpoint.json").exists()
    run_tiny(data, tmp_path)
    assert rows(tmp_path) == rows(undisturbed)
    assert result(tmp_path) == result(undisturbed)


def test_a_kill_in_the_middle_of_a_save_is_swept(
    data: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trackmill.pipeline.training import checkpoint

    publish = checkpoint.publish_bytes
    monkeypatch.setattr(checkpoint, "publish_bytes", _raise(KeyboardInterrupt()))  # as a kill: nothing is mended
    with pytest.raises(KeyboardInterrupt):
        run_tiny(data, tmp_path)
    assert (tmp_path / "checkpoints/step-00000008/model.safetensors").exists()
    monkeypatch.setattr(checkpoint, "publish_bytes", publish)
    run_tiny(data, tmp_path, max_steps=4)
    assert not (tmp_path / "checkpoints/step-00000008").exists()
    run_tiny(data, tmp_path)
    assert rows(tmp_path) == rows(undisturbed)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(data: str, undisturbed: Path, tmp_path: Path) -> None:
    run_tiny(data, tmp_path, max_steps=40)
    weights = tmp_path / "checkpoints/step-00000040/optimizer.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    notices: list[str] = []
    run_local(tiny_recipe(data), str(tmp_path), device="cpu", notice=notices.append)
    assert len(notices) == 1
    assert "step-00000040/optimizer.safetensors" in notices[0]
    assert rows(tmp_path) == rows(undisturbed)
    assert result(tmp_path) == result(undisturbed)


def test_another_recipe_is_refused_by_its_keys(data: str, tmp_path: Path) -> None:
    run_tiny(data, tmp_path, max_steps=3)
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.05, now 0\.04; seed was 0, now 1\. "):
        run_tiny(data, tmp_path, optim={"lr": 0.04}, seed=1)
    with pytest.raises(ConfigError, match="other frozen weights"):
        # The file that the recipe names has been exchanged.
        _run_with_other_frozen_weights(data, tmp_path)
    # Where and how it is run may change.
    run_tiny(data, tmp_path, max_steps=4, telemetry={"every": 1}, checkpoint={"keep": 1}, data={"prefetch": 3})
    assert len(rows(tmp_path)) == 4


def test_a_change_that_is_allowed_is_recorded_and_needs_to_be_said_once(data: str, tmp_path: Path) -> None:
    def go_on(allowed: list[str], url: str = data, **changed: Any) -> None:
        run_local(tiny_recipe(url, **changed), str(tmp_path), device="cpu", allowed=allowed)

    run_tiny(data, tmp_path, max_steps=8)
    faster = {"optim": {"lr": 0.04, "accumulate": 2}, "schedule": {"steps": 60, "warmup_steps": 4, "milestones": [30]}}
    with pytest.raises(ConfigError, match=r"accumulate was 1, now 2.*add --allow-changed optim\.accumulate optim\.lr"):
        go_on(["schedule"], **faster)
    go_on(["optim.lr", "optim.accumulate", "schedule.steps"], max_steps=16, **faster)
    go_on([], max_steps=24, **faster)
    more = make_data(tmp_path / "data", num_images=20)
    go_on(["data"], url=more, max_steps=60, **faster)
    found = rows(tmp_path)
    assert [row["step"] for row in found] == list(range(1, 61)) and found[10]["lr"] == pytest.approx(0.04)
    document = json.loads((tmp_path / "checkpoints/step-00000060/checkpoint.json").read_text())
    assert [(change["step"], change["key"]) for change in document["history"]] == [
        (8, "optim.accumulate"),
        (8, "optim.lr"),
        (8, "schedule.steps"),
        (24, "fingerprint"),
        (24, "samples"),
    ]
    assert json.loads((tmp_path / "final/card.json").read_text())["history"] == document["history"]
    told = [row["text"] for row in read_lines(str(tmp_path / "events.jsonl"))]
    assert "allowed: optim.lr was 0.05, is 0.04 now" in told
    assert told.count("allowed: samples was 14, is 21 now") == 1


def test_other_data_is_refused(data: str, tmp_path: Path) -> None:
    run_tiny(data, tmp_path / "out", max_steps=3)
    other = make_data(tmp_path / "data", num_images=9)
    with pytest.raises(ConfigError, match=r"other data: fingerprint was .*samples was 14, now 10"):
        run_tiny(other, tmp_path / "out")


def test_a_checkpoint_of_another_run_is_a_start(data: str, undisturbed: Path, tmp_path: Path) -> None:
    run_tiny(data, tmp_path / "first", max_steps=40)
    given, output = str(tmp_path / "first/checkpoints/step-00000032"), tmp_path / "second"
    run_local(tiny_recipe(data, max_steps=40), str(output), device="cpu", resume=given)
    assert [row["step"] for row in rows(output)] == list(range(33, 41))
    # The same command again goes on from its own.
    assert starting_point(str(output), given).step == 40
    run_local(tiny_recipe(data), str(output), device="cpu", resume=given)
    assert rows(output) == rows(undisturbed)[32:]
    assert result(output) == result(undisturbed)


def test_evaluation_is_told_and_disturbs_nothing(data: str, undisturbed: Path, tmp_path: Path) -> None:
    outcome = run_tiny(data, tmp_path, evaluation={"every": 20})
    found = read_lines(str(tmp_path / "evaluations.jsonl"))
    assert [row["step"] for row in found] == [20, 40, 48]
    assert rows(tmp_path) == rows(undisturbed)
    assert result(tmp_path) == result(undisturbed)
    weights = load_file(tmp_path / "final/model.safetensors")
    trained = [values for name, values in weights.items() if "running" not in name and "num_batches" not in name]
    assert found[-1]["weights"] == pytest.approx(float(sum(values.double().sum() for values in trained)))
    assert outcome.metrics == {"weights": found[-1]["weights"]}


@pytest.mark.parametrize("step", [20, 40, 48])
def test_an_evaluation_that_fails_costs_no_step_and_is_done_again(
    data: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Between two checkpoints, at one, and after the last step."""
    whole = TinyTask.evaluation
    evaluated = iter([20, 40, 48])

    def failing(task: TinyTask) -> Evaluation | None:
        real = whole(task)

        def measure(network: nn.Module, device: torch.device) -> Mapping[str, float]:
            if next(evaluated) == step:
                raise JobError("evaluation.gt is gone")
            return real.measure(network, device)

        return real and replace(real, measure=measure)

    monkeypatch.setattr(TinyTask, "evaluation", failing)
    with pytest.raises(JobError, match="is gone"):
        run_tiny(data, tmp_path, evaluation={"every": 20})
    assert starting_point(str(tmp_path), "auto").step == step
    monkeypatch.setattr(TinyTask, "evaluation", whole)
    outcome = run_tiny(data, tmp_path, evaluation={"every": 20})
    written = read_lines(str(tmp_path / "evaluations.jsonl"))
    assert [row["step"] for row in written] == [20, 40, 48]
    assert outcome.metrics == {"weights": written[-1]["weights"]}
    assert rows(tmp_path) == rows(undisturbed) and result(tmp_path) == result(undisturbed)


@pytest.mark.parametrize("step", [20, 40, 48])
def test_a_signal_in_an_evaluation_saves_and_the_evaluation_is_done_later(
    data: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Between two checkpoints, at one, and after the last step."""
    whole = TinyTask.evaluation
    evaluated = iter([20, 40, 48])

    def signalled(task: TinyTask) -> Evaluation | None:
        real = whole(task)

        def measure(network: nn.Module, device: torch.device) -> Mapping[str, float]:
            if next(evaluated) == step:
                signal.raise_signal(signal.SIGTERM)
                network(torch.zeros(2, 3, 8, 8))
                raise AssertionError("the next layer that runs is the last")
            return real.measure(network, device)

        return real and replace(real, measure=measure)

    monkeypatch.setattr(TinyTask, "evaluation", signalled)
    outcome = run_tiny(data, tmp_path, evaluation={"every": 20})
    assert (outcome.interrupted, outcome.step, outcome.result) == (True, step, "")
    assert starting_point(str(tmp_path), "auto").step == step
    monkeypatch.setattr(TinyTask, "evaluation", whole)
    again = run_tiny(data, tmp_path, evaluation={"every": 20})
    written = read_lines(str(tmp_path / "evaluations.jsonl"))
    assert [row["step"] for row in written] == [20, 40, 48]
    assert not again.interrupted and again.metrics == {"weights": written[-1]["weights"]}
    assert rows(tmp_path) == rows(undisturbed) and result(tmp_path) == result(undisturbed)


def test_a_run_that_ends_between_evaluation_and_result_keeps_its_metrics(data: str, tmp_path: Path) -> None:
    first = run_tiny(data, tmp_path, evaluation={"every": 20})
    card = json.loads((tmp_path / "final/card.json").read_text())
    shutil.rmtree(tmp_path / "final")
    again = run_tiny(data, tmp_path, evaluation={"every": 20})
    assert again.metrics == first.metrics and again.metrics
    assert json.loads((tmp_path / "final/card.json").read_text()) == card
    assert len(read_lines(str(tmp_path / "evaluations.jsonl"))) == 3


def test_the_result_is_the_average_where_there_is_one(data: str, tmp_path: Path) -> None:
    run_tiny(data, tmp_path, max_steps=5, ema={"decay": 0.9})
    folder = tmp_path / "checkpoints/step-00000005"
    own, averaged = load_file(folder / "model.safetensors"), load_file(folder / "ema.safetensors")
    weights = load_file(tmp_path / "final/model.safetensors")
    assert torch.equal(weights["head.weight"], averaged["network.head.weight"])
    assert not torch.equal(weights["head.weight"], own["network.head.weight"])
    assert torch.equal(weights["norm.running_mean"], own["network.norm.running_mean"])
    assert "network.stem.weight" not in own, "frozen weights are in the result, not in every checkpoint"
    assert "stem.weight" in weights


def test_a_loss_that_is_no_number_ends_the_run_by_name(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(1, 1 << 30))
    monkeypatch.setattr(TinyTask, "poison", staticmethod(lambda: next(steps) > 14))
    with pytest.raises(NonFinite, match=r"step 17: .*loss nan.*That makes 3 steps in a row"):
        run_tiny(data, tmp_path, max_nonfinite=3, checkpoint={"every": 1})
    newest = starting_point(str(tmp_path), "auto")
    assert newest is not None
    assert newest.step == 14, "no checkpoint has a loss that is no number behind it"


def test_a_short_spell_of_no_numbers_is_survived(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(1, 1 << 30))
    monkeypatch.setattr(TinyTask, "poison", staticmethod(lambda: next(steps) in (6, 7)))
    assert run_tiny(data, tmp_path, max_nonfinite=3, max_steps=20).step == 20
    found = rows(tmp_path)
    assert [row["step"] for row in found if row["loss"] is None] == [6, 7]
    assert all(values.isfinite().all() for values in load_file(tmp_path / "final/model.safetensors").values())


def test_the_samples_of_a_step_that_was_left_out_are_named(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(1, 1 << 30))
    met: list[float] = []
    collate = TinyTask.collate

    def seen(task: TinyTask, examples: Any) -> Any:
        batch = collate(task, examples)
        met.append(sorted(batch["keys"].tolist()))
        return batch

    monkeypatch.setattr(TinyTask, "collate", seen)
    monkeypatch.setattr(TinyTask, "poison", staticmethod(lambda: next(steps) == 11))
    run_tiny(data, tmp_path, max_steps=16, optim={"accumulate": 2})
    (told,) = [row["text"] for row in read_lines(str(tmp_path / "events.jsonl")) if "step 6:" in row["text"]]
    assert "no numbers came out" in told and "1 steps were left out so far" in told
    named = told.partition("among ")[2].partition("; ")[0].split(", ")
    assert sorted({sum(key.encode()) % 1000 for key in named}) == sorted({*met[10], *met[11]})
    assert any("1 steps were left out" in row["text"] for row in read_lines(str(tmp_path / "events.jsonl"))[-2:])


def test_a_stop_after_a_bad_step_saves_and_a_due_checkpoint_is_made_later(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(1, 1 << 30))
    monkeypatch.setattr(TinyTask, "poison", staticmethod(lambda: next(steps) in (8, 20)))
    run_tiny(data, tmp_path, max_steps=15)
    folders = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert folders == ["step-00000009", "step-00000015"]
    assert run_tiny(data, tmp_path, max_steps=20).step == 20, "its last step was left out, the weights are those before"
    assert starting_point(str(tmp_path), "auto").step == 20


def test_weights_that_are_no_numbers_are_never_saved(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that writes into a buffer of its own may break it however finite its losses are."""
    build = TinyTask.build

    def broken(task: TinyTask, seed: int, read_weights: bool = True) -> Any:
        module = build(task, seed, read_weights)
        module.register_buffer("table", torch.zeros(3))
        calls = iter(range(1, 1 << 30))

        def fill(*_: Any) -> None:
            module.table.fill_(float("inf") if next(calls) > 10 else 0.0)

        module.register_forward_hook(fill)
        return module

    monkeypatch.setattr(TinyTask, "build", broken)
    with pytest.raises(NonFinite, match=r"checkpoint of step 16 would hold nan or infinity \(table\), so it is not"):
        run_tiny(data, tmp_path)
    assert starting_point(str(tmp_path), "auto").step == 8
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000008"]


def test_a_run_without_any_gradient_is_no_success(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = TinyModule.forward

    def nothing(module: TinyModule, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        losses = forward(module, batch, generator)
        return losses | {"total": losses["total"] * 0}

    monkeypatch.setattr(TinyModule, "forward", nothing)
    with pytest.raises(NothingLearnt, match="all gradients were exactly zero in all of the last 12 steps"):
        run_tiny(data, tmp_path, max_steps=12)


def test_never_refuses_what_is_there(data: str, tmp_path: Path) -> None:
    assert starting_point(str(tmp_path), "never") is None
    run_tiny(data, tmp_path, max_steps=2)
    with pytest.raises(ConfigError, match="holds a run of 2 steps already"):
        starting_point(str(tmp_path), "never")


@pytest.mark.slow
def test_two_ranks_see_the_same_batches_and_one_goes_on_from_them(data: str, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "jobs/train.py"]
    command += ["--recipe", tiny_toml(tmp_path), "--data", data, "--output", str(output)]
    command += ["--device", "cpu", "--max-steps", "24"]
    done = subprocess.run(command, cwd=ROOT, env=job_environment(), capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("starts at step 0") == 1, "one rank speaks"
    keys = [row["keys"] for row in rows(undisturbed)]
    assert [row["keys"] for row in rows(output)] == pytest.approx(keys[:24])
    document = json.loads((output / "checkpoints/step-00000024/checkpoint.json").read_text())
    assert document["world"] == 2
    run_tiny(data, output)
    assert [row["keys"] for row in rows(output)] == pytest.approx(keys)


def _run_with_other_frozen_weights(data: str, output: Path) -> None:
    path = output / "checkpoints/step-00000003/checkpoint.json"
    changed = tiny_recipe(data, model={"frozen_seed": 12})
    kept, digest = effective(changed)
    before = rewrite(path, recipe=kept, digest=digest)
    try:
        run_local(changed, str(output), device="cpu")
    finally:
        rewrite(path, **before)


def _raise(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def _lines(output: Path) -> list[str]:
    path = output / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []
