"""Files of weights are read once a process, and what is frozen reaches evaluations and the result without them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("albumentations")

import trackmill.models.masa
from tests.training.gloo_ranks import run_ranks
from tests.training.tiny_runs import make_data, run_tiny, tiny_recipe
from tests.training.tiny_task import TinyTask
from trackmill.jobs.train import main
from trackmill.models.masa.variants import metadata_of
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.sidecars.about import NoSidecar
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.tasks.masa import task as masa_task
from trackmill.pipeline.training.loop import data_identity
from trackmill.pipeline.training.prepare import prepare_training
from trackmill.pipeline.training.recipe import make_task
from trackmill.pipeline.training.telemetry.lines import read_lines
from trackmill.schemas.config import ConfigError

PRODUCER = "tests.sidecars.producers:Brightness"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_data(tmp_path_factory.mktemp("data"))


def test_one_reading_for_counting_training_and_the_result(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that begins, one that goes on, and a dry run; a finished one reads nothing."""
    network = trackmill.models.masa.load("masa_lite0", seed=3)
    path = tmp_path / "start.safetensors"
    save_file(network.state_dict(), path, metadata_of(network.variant))
    readings: list[str] = []
    read = masa_task.read_weights

    def counting(source: str) -> Any:
        readings.append(source)
        return read(source)

    monkeypatch.setattr(masa_task, "read_weights", counting)
    command = ["--recipe", "masa_lite0", "--data", data, "--output", str(tmp_path / "out"), "--launcher", "local"]
    command += ["--device", "cpu", "--set", f"model.weights={path}", "--set", "data.batch_size=2"]
    command += ["--set", "data.workers=0", "--set", "views.size=64", "--set", "telemetry.tensorboard=false"]

    def readings_of(*more: str) -> int:
        readings.clear()
        assert main([*command, *more]) == 0
        return len(readings)

    assert readings_of("--dry-run") == 1
    assert readings_of("--max-steps", "1") == 1
    assert readings_of("--max-steps", "2") == 1
    assert readings_of("--max-steps", "2") == 0
    result = load_file(tmp_path / "out" / "final" / "model.safetensors")
    for name, values in network.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(result[name], values), name


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed compiles an operator when it is first used")
@pytest.mark.parametrize("stage", [2, 3])
def test_frozen_weights_that_zero_has_spread_are_evaluated_and_exported(stage: int, data: str, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    run_tiny(data, tmp_path / "plain", max_steps=8, evaluation={"every": 4})
    engine = {"name": "deepspeed", "zero_stage": stage}
    run_ranks(data, tmp_path / "spread", 2, tmp_path / "ranks", max_steps=8, evaluation={"every": 4}, engine=engine)
    plain, spread = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("plain", "spread"))
    assert plain.keys() == spread.keys()
    assert torch.equal(plain["stem.weight"], spread["stem.weight"])
    assert torch.equal(plain["stem.bias"], spread["stem.bias"])
    rows = read_lines(str(tmp_path / "spread" / "evaluations.jsonl"))
    assert [row["step"] for row in rows] == [4, 8]
    trained = [values for name, values in spread.items() if "running" not in name and "num_batches" not in name]
    assert rows[-1]["weights"] == pytest.approx(float(sum(values.double().sum() for values in trained)))


def test_sidecars_belong_to_the_data_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(tmp_path / "data")
    recipe = tiny_recipe(data)
    task = make_task(recipe)
    assert data_identity(read_catalog(data), task).keys() == {"fingerprint", "samples"}, "as runs before have it"
    monkeypatch.setattr(TinyTask, "sidecars", lambda self: ("bright",))
    with pytest.raises(NoSidecar, match="no sidecar 'bright'"):
        prepare_training(recipe, str(tmp_path / "out"), 1)
    make_sidecar(data, "bright", PRODUCER)
    first = data_identity(read_catalog(data), task)["sidecars"]
    assert set(first) == {"bright"}
    run_tiny(data, tmp_path / "out", max_steps=2)
    assert prepare_training(recipe, str(tmp_path / "out"), 1).start is not None
    # The same table made with other settings is other data.
    shutil.rmtree(Path(data) / "sidecars")
    make_sidecar(data, "bright", PRODUCER, {"level": 200})
    assert data_identity(read_catalog(data), task)["sidecars"] != first
    with pytest.raises(ConfigError, match=r"was trained on other data: .*sidecars was"):
        prepare_training(recipe, str(tmp_path / "out"), 1)
