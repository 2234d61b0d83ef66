"""IP-MOT in the loop: killed and resumed while clips grow and the TrackBook learns; evaluation by tracking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("albumentations")

from tests.clip.towers import small_clip_state
from tests.training.clip_runs import ipmot_recipe, make_clips
from tests.training.tiny_runs import result, rows
from trackmill.pipeline.tasks.ipmot.batch import QueryBatch
from trackmill.pipeline.tasks.ipmot.module import IpMotTraining
from trackmill.pipeline.training.launch import run_local

ALIGNED = {"alignment": True}
SMALL_SIZES = {
    "text.width": 64,
    "text.layers": 2,
    "text.embedding": 48,
    "image.patch": 8,
    "image.grid": 4,
    "image.width": 64,
    "image.layers": 2,
    "image.embedding": 48,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def trackbook(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Section `trackbook`, with the file of a small CLIP."""
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file(small_clip_state(), path)
    return {"clip_weights": str(path), "clip_changes": SMALL_SIZES, "capacity": 16, "lr": 0.01}


def test_killed_in_the_middle_and_resumed_gives_the_same_to_the_bit(
    data: str, trackbook: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = ipmot_recipe(data, loss=ALIGNED, trackbook=trackbook)
    run_local(recipe, str(tmp_path / "whole"), device="cpu")
    forward, lengths = IpMotTraining.forward, []

    def killed(self: IpMotTraining, batch: QueryBatch, generator: torch.Generator) -> dict[str, Tensor]:
        lengths.append([len(clip.images) for clip in batch.clips])
        if len(lengths) == 4:
            raise KeyboardInterrupt
        return forward(self, batch, generator)

    monkeypatch.setattr(IpMotTraining, "forward", killed)
    with pytest.raises(KeyboardInterrupt):
        run_local(recipe, str(tmp_path / "twice"), device="cpu")
    ended = run_local(recipe, str(tmp_path / "twice"), device="cpu")
    assert ended.step == 4
    assert lengths == [[2, 2], [2, 2], [3, 3], [3, 3], [3, 3]], "step 4 was lost with the process, and done again"
    assert result(tmp_path / "twice") == result(tmp_path / "whole")
    assert rows(tmp_path / "twice") == rows(tmp_path / "whole")
    states = [
        load_file(tmp_path / run / "checkpoints" / "step-00000004" / "model.safetensors") for run in ("whole", "twice")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(values, states[1][name]) for name, values in states[0].items())
    book = {name.removeprefix("book."): each for name, each in states[0].items() if name.startswith("book.")}
    assert int(book["iteration"]) == 4
    assert int((book["keys"] >= 0).sum()) == 8, "two people in each of four videos"
    assert not any(name.startswith("clip.") for name in states[0]), "what is frozen is in no checkpoint"
    exported = load_file(tmp_path / "whole" / "final" / "model.safetensors")
    assert {name.partition(".")[0] for name in exported} == {"detector", "query_update", "deduplication", "embedding"}
    found = rows(tmp_path / "whole")
    assert {"tracker", "focal", "l1", "giou", "dem", "triplet", "i2tce", "i2t", "t2i", "duplicates"} <= set(found[0])
    assert all(row["positives_detect"] >= 1 for row in found)
    assert all(row["positives_track"] >= 1 for row in found)
