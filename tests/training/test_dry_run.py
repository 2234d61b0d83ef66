"""What a run would take: counted before anything is measured, and measured with half of the free memory at most."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runs import TIMEOUT_S
from tests.training.tiny_runs import make_data, tiny_recipe
from tests.training.tiny_task import TinyExample, TinyModule, TinyTask
from trackmill.pipeline.training import dry_run as module
from trackmill.pipeline.training.dry_run import dry_run
from trackmill.pipeline.training.free_memory import PeakMemory, at_most, free_memory, is_out_of_memory
from trackmill.pipeline.training.prepare import prepare_training
from trackmill.schemas.config import ConfigError

CPU = torch.device("cpu")
MB = 1 << 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_data(tmp_path_factory.mktemp("data"))


def lines(url: str, tmp_path: Path, **changes: Any) -> Any:
    plan = prepare_training(tiny_recipe(url, **changes), str(tmp_path / "out"), 1, build=False)
    return dry_run(plan, 1, CPU)


def test_it_counts_before_a_weight_is_read(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = TinyTask.build

    def unreadable(task: TinyTask, seed: int, read_weights: bool = True) -> Any:
        if read_weights:
            raise ConfigError("model.weights: no such file")
        return build(task, seed, read_weights)

    monkeypatch.setattr(TinyTask, "build", unreadable)
    said = lines(data, tmp_path)
    first = [next(said) for _ in range(4)]
    assert first[2] == "parameters: 831, of which 663 are trained (stem: 168 frozen, norm: 12, head: 651)"
    assert "memory of each rank without activations: 8.6 kB" in first[3]
    with pytest.raises(ConfigError, match="no such file"):
        next(said)


def test_examples_that_change_with_the_epoch_are_measured_as_they_are_in_the_last(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Growing(TinyExample):
        def at_epoch(self, epoch: int) -> TinyExample:
            asked.append(epoch)
            return TinyExample()

    monkeypatch.setattr(TinyTask, "make_example", lambda task: Growing())
    said = list(lines(data, tmp_path, data={"workers": 0}))
    (epochs,) = re.findall(r"or ([0-9.]+) epochs", said[1])
    last = math.ceil(float(epochs)) - 1
    assert last > 0 and asked and set(asked) <= {last, last + 1}
    assert f"examples as in epoch {last} (from 0), the last" in said[4] and "steps to do: at most about " in said[5]


def hungry(size: int) -> Any:
    """A forward pass that takes so many bytes a sample."""
    forward = TinyModule.forward

    def taking(task_module: TinyModule, batch: Any, generator: torch.Generator) -> Any:
        taken = torch.ones(len(batch["pixels"]), size // 4)
        losses = forward(task_module, batch, generator)
        return losses | {"size": losses["size"] + 0 * taken[0, 0]}

    return taking


def check_no_more_samples_are_measured_than_half_of_the_memory_bears(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinyModule, "forward", hungry(100 * MB))
    monkeypatch.setattr(module, "free_memory", lambda device: 1200 * MB)
    said = list(lines(data, tmp_path, data={"batch_size": 16}))
    measured = int(said[4].partition("measured on cpu with ")[2].split()[0])
    assert (
        1 <= measured <= 6 and f"{measured} of the 16 samples" in said[4] and "629.1 MB, half of the memory" in said[4]
    )
    assert said[5].startswith("48 steps to do: about ")


def check_what_does_not_fit_at_all_is_said(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyModule, "forward", hungry(900 * MB))
    monkeypatch.setattr(module, "free_memory", lambda device: 400 * MB)
    last = list(lines(data, tmp_path))[-1]
    assert last.startswith("a step could not be measured: a single example takes more than")
    assert last.endswith("; less with engine.activation_checkpointing = true")
    monkeypatch.setattr(module, "free_memory", lambda device: 4000)
    assert "a step is not measured: without activations alone it takes 8.6 kB" in list(lines(data, tmp_path))[-1]


def check_a_limit_holds_and_ends() -> None:
    with at_most(CPU, 300 * MB):
        peak = PeakMemory(CPU)
        torch.ones(100 * MB // 4)
        assert 60 * MB < peak.grown() < 300 * MB
        for take in (lambda: torch.ones(250 * MB), lambda: np.ones(250 * MB)):
            with pytest.raises((RuntimeError, MemoryError)) as caught:
                take()
            assert is_out_of_memory(caught.value)
    torch.empty(250 * MB)
    assert free_memory(CPU) > 0
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


@pytest.mark.slow  # a pytest of its own, which imports everything once more
def test_limits_of_memory_in_a_process_of_its_own() -> None:
    """All `check_...`: the C library hands out again what other tests have freed, and no limit sees that."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "python_functions=check_*",
        __file__,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [*command, __file__], cwd=root, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("... "), "three of them"
