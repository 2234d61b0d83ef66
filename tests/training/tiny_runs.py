"""Short runs of the tiny task, and what is compared of two of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tests.make_dataset import make_dataset
from tests.training.tiny_task import TINY as TASK
from trackmill.pipeline.storage.documents import document_bytes, read_document
from trackmill.pipeline.training.launch import run_local
from trackmill.pipeline.training.loop import TrainingResult
from trackmill.pipeline.training.recipe import Recipe, make_recipe
from trackmill.pipeline.training.telemetry.lines import read_lines
from trackmill.schemas.config import merge

MEASURED = ("samples_per_s", "data_wait", "memory_bytes")
"""Columns of a row that say how a step went, not what came of it."""

TINY: dict[str, Any] = {
    "task": TASK,
    "data": {"batch_size": 4, "workers": 0},
    "optim": {"lr": 0.05},
    "schedule": {"steps": 48, "warmup_steps": 4, "milestones": [30]},
    "telemetry": {"every": 5, "tensorboard": False},
    "checkpoint": {"every": 8},
}


def make_data(folder: Path, num_images: int = 13) -> str:
    """A small data set; returns its root."""
    make_dataset(str(folder), num_images=num_images)
    return str(folder)


def tiny_recipe(url: str, **changes: Any) -> Recipe:
    """48 steps of four samples."""
    return make_recipe(merge(merge(TINY, {"data": {"url": url}}), changes), "tiny")


def run_tiny(url: str, output: Path, **changes: Any) -> TrainingResult:
    """Train in this process."""
    return run_local(tiny_recipe(url, **changes), str(output), device="cpu")


def rewrite(path: Path, **changes: Any) -> dict[str, Any]:
    """Change a document of a run as if the run had written it so; returns what it said before."""
    before = read_document(str(path))
    path.write_bytes(document_bytes({**before, **changes}))
    return before


def rows(output: Path) -> list[dict[str, Any]]:
    """What the steps gave, without what was measured by a clock."""
    return [
        {name: value for name, value in row.items() if name not in MEASURED}
        for row in read_lines(str(output / "metrics.jsonl"))
    ]


def result(output: Path) -> str:
    """SHA-256 of the weights that a run left."""
    return hashlib.sha256((output / "final" / "model.safetensors").read_bytes()).hexdigest()
