"""A task that is no part of the project, trained through the real command line: no line of ours knows it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.runs import ROOT, TIMEOUT_S, job_environment
from tests.training.tiny_runs import make_data, rows

MODULE = '''
"""Brightness of a picture, guessed by one linear layer."""
import torch
from torch import nn
from pydantic import Field

from trackmill.pipeline.tasks.base import Task, TrainingModule
from trackmill.schemas.config import Settings


class ModelSettings(Settings):
    bias: bool = Field(True, description="Whether the layer has one.")
    note: str = Field("", description="Changes nothing.")


class Brightness(TrainingModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch, generator):
        loss = (self.network(batch["colours"]) - batch["brightness"]).square().mean()
        return {"total": loss, "brightness": batch["brightness"].mean()}


class Colours:
    def __call__(self, sample, rng, another):
        pixels = sample.image(0)[:: rng.integers(1, 3)].reshape(-1, 3) / 255.0
        return pixels.mean(0), pixels.mean()


class BrightnessTask(Task):
    name = "brightness"
    sections = {"layer": ModelSettings}
    no_effect = ("layer.note",)

    def __init__(self, layer):
        self.layer = layer

    def build(self, seed, read_weights=True):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Brightness(nn.Linear(3, 1, bias=self.layer.bias))

    def make_example(self):
        return Colours()

    def collate(self, examples):
        return {
            "colours": torch.tensor([list(colours) for colours, _ in examples], dtype=torch.float32),
            "brightness": torch.tensor([[float(brightness)] for _, brightness in examples]),
        }

    def metadata(self):
        return {"made by": "somebody else"}
'''
RECIPE = """
task = "brightness_lab.learning:BrightnessTask"
[layer]
bias = true
[data]
batch_size = 4
workers = 1
[optim]
lr = 0.05
groups = [{match = "bias", lr_factor = 0.5}]
[schedule]
steps = 12
warmup_steps = 0
milestones = []
[checkpoint]
every = 4
[telemetry]
tensorboard = false
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of somebody's with a package in it."""
    package = tmp_path / "work" / "brightness_lab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "learning.py").write_text(MODULE)
    (tmp_path / "work" / "mine.toml").write_text(RECIPE)
    return tmp_path / "work"


def train(folder: Path, *arguments: object, expect: int = 0) -> str:
    """Run `jobs/train.py` as somebody would in that folder; returns what was printed."""
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=folder,
        env=job_environment(OMP_NUM_THREADS="1", NO_ALBUMENTATIONS_UPDATE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == expect, done.stdout
    return done.stdout


def exported(output: Path) -> bytes:
    return (output / "final" / "model.safetensors").read_bytes()


@pytest.mark.ray
@pytest.mark.slow  # a minute; tasks from outside in this process, and other runs on ranks of Ray, are in `make test`
@pytest.mark.timeout(1800)
def test_here_in_loader_workers_and_on_ranks_of_ray(elsewhere: Path, tmp_path: Path) -> None:
    """Begun on this machine, gone on with on a rank of Ray, and the same to the bit as without a stop."""
    data = make_data(tmp_path / "data")
    command = ["--recipe", "mine.toml", "--data", data, "--device", "cpu"]
    dry = train(elsewhere, *command, "--output", tmp_path / "none", "--dry-run")
    assert "parameters: 4, of which 4 are trained" in dry
    assert "optim.groups 'bias': 1 tensors, 1 parameters, lr x 0.5, weight decay 0.0001" in dry
    assert "all others: 1 tensors, 3 parameters, lr x 1" in dry
    assert not (tmp_path / "none").exists()

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(elsewhere, *command, "--output", whole, "--launcher", "local")
    train(elsewhere, *command, "--output", parts, "--launcher", "local", "--max-steps", 6)
    printed = train(elsewhere, *command, "--output", parts, "--launcher", "ray", "--set", "layer.note=more")
    assert "goes on after step 6" in printed
    assert rows(parts) == rows(whole)
    assert exported(parts) == exported(whole)
    with safe_open(parts / "final" / "model.safetensors", framework="pt") as handle:
        assert handle.metadata() == {"made by": "somebody else"}
    document = json.loads((parts / "checkpoints" / "step-00000012" / "checkpoint.json").read_text())
    assert document["recipe"]["task"] == "brightness", "a checkpoint holds no module"
    assert json.loads((parts / "config.json").read_text())["task"] == "brightness_lab.learning:BrightnessTask"


@pytest.mark.slow  # five commands, one after the other
def test_a_module_that_has_moved_goes_on_and_what_is_missing_is_named(elsewhere: Path, tmp_path: Path) -> None:
    data, output = make_data(tmp_path / "data"), tmp_path / "out"
    command = ["--recipe", "mine.toml", "--data", data, "--device", "cpu", "--output", output, "--launcher", "local"]
    train(elsewhere, *command, "--max-steps", 4)
    (elsewhere / "brightness_lab").rename(elsewhere / "other_lab")
    printed = train(elsewhere, *command, expect=2)
    assert "error: recipe mine.toml: task brightness_lab.learning:BrightnessTask: there is no module" in printed
    assert "Traceback" not in printed
    moved = ["--set", "task=other_lab.learning:BrightnessTask"]
    assert "goes on after step 4" in train(elsewhere, *command, *moved, "--max-steps", 6)
    printed = train(elsewhere, *command, *moved, "--set", "layer.bias=false", expect=2)
    assert "layer.bias was True, now False" in printed
