"""`--proposer sam` from the command line: a checkpoint file in, shards with masks out, with and without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("segment_anything")

import torch

from tests.make_media import make_pictures
from tests.runs import mine, rows, tars
from trackmill.models.sam import load
from trackmill.pipeline.shards.reader import open_dataset, read_sample

# Random weights give masks that no gate would let through.
NO_GATES = ["sam.points_per_side=1", "sam.pred_iou_thresh=0", "sam.stability_score_thresh=0"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileSAM with random weights, as its authors' file holds them."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mine.pt"
    torch.save(load("mobile", None).state_dict(), path)
    return path


@pytest.mark.slow  # proposers are tested beside the model, and this by the Ray run below
def test_mining_with_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=2)
    options: list[object] = ["--input", tmp_path / "in", "--proposer", "sam", "--weights", checkpoint]
    options += ["--sam-variant", "mobile", *(part for setting in NO_GATES for part in ("--set", setting))]
    mine(*options, "--output", tmp_path / "out", "--executor", "inline")
    assert [row.status for row in rows(tmp_path / "out")] == ["ok"] * 2
    assert all(row.proposals > 0 for row in rows(tmp_path / "out"))
    dataset = open_dataset(str(tmp_path / "out"))
    sample = read_sample(dataset, dataset.stored[0].key)
    assert sample.record.proposer.startswith("sam/")
    assert sample.record.has_masks and sample.masks is not None


@pytest.mark.slow
@pytest.mark.ray
def test_ray_writes_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=4)
    options: list[object] = ["--input", tmp_path / "in", "--proposer", "sam", "--weights", checkpoint]
    options += ["--sam-variant", "mobile", *(part for setting in NO_GATES for part in ("--set", setting))]
    options += ["--set", "shards.unit_frames=2", "--set", "run.threads=1"]
    mine(*options, "--output", tmp_path / "inline", "--executor", "inline")
    mine(*options, "--output", tmp_path / "ray", "--actors", 2)
    assert tars(tmp_path / "ray") == tars(tmp_path / "inline")
