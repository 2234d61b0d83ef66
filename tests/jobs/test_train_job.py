"""`jobs/train.py` as people use it: what it checks before it starts, what it says, and MASA end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import trackmill.models.masa
from tests.training.tiny_runs import make_data, rows
from tests.training.tiny_task import TINY as TASK
from trackmill.jobs.train import main

TINY = f"""
task = "{TASK}"
[data]
batch_size = 4
workers = 0
[schedule]
steps = 6
[telemetry]
every = 2
tensorboard = false
"""
MASA_SMALL = [
    *("--set", "data.batch_size=2", "--set", "data.workers=0", "--set", "telemetry.tensorboard=false"),
    *("--set", "views.size=64", "--set", "loss.proposals=20", "--set", "loss.samples=16"),
    *("--set", "model.weights=''", "--set", "model.backbone_weights=''"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run(recipe: str, data: str, output: Path, *more: str) -> int:
    return main(
        ["--recipe", recipe, "--data", data, "--output", str(output), "--launcher", "local", "--device", "cpu", *more]
    )


def test_it_says_what_it_does_and_where_the_result_is(
    recipe: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert run(recipe, data, output, "--checkpoint-every", "2", "--max-steps", "4", "--set", "optim.lr=0.01") == 0
    printed = capsys.readouterr().out
    assert "14 samples in 6 shards" in printed
    assert "steps: 4 of 4 samples" in printed
    assert "parameters: 831, of which 663 are trained (stem: 168 frozen" in printed
    assert "starts at step 0" in printed
    assert f"weights: {output}/final/model.safetensors" in printed
    resolved = json.loads((output / "config.json").read_text())
    assert (resolved["optim"]["lr"], resolved["checkpoint"]["every"], resolved["max_steps"]) == (0.01, 2, 4)

    # The same command with more steps goes on, and then there is nothing left to do.
    assert run(recipe, data, output, "--max-steps", "6", "--set", "optim.lr=0.01") == 0
    assert "goes on after step 4" in capsys.readouterr().out
    before = {name: (output / name).stat().st_mtime_ns for name in files(output)}
    assert run(recipe, data, output, "--set", "optim.lr=0.01") == 0
    printed = capsys.readouterr().out
    assert "all 6 steps are done already" in printed
    assert "final/model.safetensors" in printed
    assert {name: (output / name).stat().st_mtime_ns for name in files(output)} == before
    assert [row["step"] for row in rows(output)] == [1, 2, 3, 4, 5, 6]


def test_a_change_goes_on_where_it_is_allowed(
    recipe: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert run(recipe, data, output, "--max-steps", "2") == 0
    changed = ["--set", "optim.lr=0.01", "--set", "optim.weight_decay=0.5", "--max-steps", "4"]
    assert run(recipe, data, output, *changed, "--allow-changed", "optim.lr") == 2
    assert "(or add --allow-changed optim.weight_decay, which is recorded)" in capsys.readouterr().err
    assert run(recipe, data, output, *changed, "--allow-changed", "optim.lr", "optim.weight_decay") == 0
    assert "allowed: optim.lr was 0.08, is 0.01 now" in capsys.readouterr().err


def test_a_dry_run_measures_and_writes_nothing(
    recipe: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(recipe, data, tmp_path / "out", "--dry-run", "--set", f"data.cache={tmp_path}/cache") == 0
    assert files(tmp_path) == ["tiny.toml"]
    assert not (tmp_path / "out").exists()
    printed = capsys.readouterr().out
    assert "memory of each rank without activations: " in printed
    assert "a step takes " in printed
    assert "6 steps to do: about " in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--set", "optim.momentun=1"], "did you mean 'optim.momentum'?", id="unknown key"),
        pytest.param(["--set", "optim.lr"], "should be KEY=VALUE", id="no value"),
        pytest.param(["--set", "optim.accumulate=3"], "optim.accumulate = 3 does not divide", id="micro batch"),
        pytest.param(["--set", "data.streams=3"], "data.streams is 3", id="streams"),
        pytest.param(["--num-workers", "2"], "torchrun --nproc-per-node 2", id="two ranks in one process"),
        pytest.param(["--device", "tpu"], "auto, cpu, cuda", id="device"),
        pytest.param(["--recipe", "masa_lite"], "did you mean 'masa_lite0'?", id="unknown recipe"),
        pytest.param(["--resume", "/no/such/place"], "no checkpoint at /no/such/place", id="no such checkpoint"),
        pytest.param(["--data", "/no/such/data"], "/no/such/data", id="no such data"),
        pytest.param(["--data", "s3://me:secret@bucket/x"], "holds a user name or password", id="credentials"),
        pytest.param(["--config", "/no/such/file.toml"], "/no/such/file.toml", id="no such settings"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    arguments: list[str],
    message: str,
    recipe: str,
    data: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(recipe, data, tmp_path / "out", *arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert "secret" not in printed
    assert not (tmp_path / "out").exists()


def test_never_and_another_recipe_refuse_a_run_that_is_there(
    recipe: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert run(recipe, data, output, "--resume", "never") == 0
    before = files(output)
    assert run(recipe, data, output, "--resume", "never") == 2
    assert "holds a run of 6 steps already" in capsys.readouterr().err
    assert run(recipe, data, output, "--seed", "3") == 2
    assert "seed was 0, now 3" in capsys.readouterr().err
    assert files(output) == before
    assert json.loads((output / "config.json").read_text())["seed"] == 0


def test_an_output_that_cannot_be_written_to(
    recipe: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(recipe, data, tmp_path / "file" / "out") == 2
    assert "file" in capsys.readouterr().err


def test_a_run_is_not_written_over_a_data_set(recipe: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(data) / "config.json"
    config.write_text('{"parts": {}, "inputs": []}')
    try:
        assert main(["--recipe", recipe, "--data", data, "--output", data]) == 2
        assert "is the data set that --data names" in capsys.readouterr().err
        assert config.read_text() == '{"parts": {}, "inputs": []}'
    finally:
        config.unlink()


def test_settings_from_a_file_lose_to_the_command_line(recipe: str, data: str, tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text("max_steps = 3\n[optim]\nlr = 0.02\nmomentum = 0.5\n")
    more = ["--config", str(tmp_path / "more.toml"), "--set", "optim.lr=0.03", "--max-steps", "1"]
    assert run(recipe, data, tmp_path / "out", *more) == 0
    resolved = json.loads((tmp_path / "out/config.json").read_text())
    assert (resolved["optim"]["lr"], resolved["optim"]["momentum"], resolved["max_steps"]) == (0.03, 0.5, 1)


def test_masa_trains_from_shards_and_its_weights_load(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert run("masa_lite0", data, output, "--max-steps", "2", *MASA_SMALL) == 0, capsys.readouterr().err
    assert "trackmill track --model masa_lite0 --weights " in capsys.readouterr().out
    found = rows(output)
    assert [row["step"] for row in found] == [1, 2]
    assert all(row["loss"] is not None and row["loss"] > 0 for row in found)
    url = str(output / "final/model.safetensors")
    trained = trackmill.models.masa.load("masa_lite0", url)
    fresh = trackmill.models.masa.load("masa_lite0", None, seed=0)
    changed = [
        name
        for (name, before), after in zip(fresh.named_parameters(), trained.parameters())
        if not torch.equal(before, after)
    ]
    assert changed
