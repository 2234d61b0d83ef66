"""IP-MOT in the loop: killed and resumed while clips grow and the TrackBook learns; evaluation by tracking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("albumentations")

from tests.make_media import make_mot
from tests.tasks.ipmot_batches import SIZES, clip_file
from tests.training.clip_runs import ipmot_recipe, make_clips
from tests.training.tiny_runs import result, rows
from trackmill.pipeline.storage.documents import read_document
from trackmill.pipeline.tasks.ipmot.batch import QueryBatch
from trackmill.pipeline.tasks.ipmot.module import IpMotTraining
from trackmill.pipeline.training.launch import run_local, worker
from trackmill.pipeline.training.prepare import prepare_training
from trackmill.schemas.config import ConfigError

ALIGNED = {"alignment": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def trackbook(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Section `trackbook`, with the file of a small CLIP."""
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file(clip_file(), path)
    return {"clip_weights": str(path), "clip_changes": SIZES, "capacity": 16, "lr": 0.01}


def test_killed_in_the_middle_and_resumed_gives_the_same_to_the_bit(
    data: str, trackbook: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = ipmot_recipe(data, loss=ALIGNED, trackbook=trackbook)
    run_local(recipe, str(tmp_path / "whole"), device="cpu")
    forward, lengths = IpMotTraining.forward, []

    def killed(self: IpMotTraining, batch: QueryBatch, generator: torch.Generator) -> dict[str, Tensor]:
        lengths.append([len(clip.images) for clip in batch.clips])
        assert self.book is not None and self.book.total_iterations == 4  # `Task.scheduled`
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


def test_evaluation_tracks_sequences_disturbs_nothing_and_may_be_stopped(data: str, tmp_path: Path) -> None:
    for name in ("MOT17-01", "MOT17-02"):
        make_mot(tmp_path / "mot", name, num_frames=4)
    evaluation = {"gt": str(tmp_path / "mot"), "every": 2, "frames": "2:", "sequences": ["MOT17-01"]}
    short = {"schedule": {"steps": 2, "milestones": []}}
    recipe = ipmot_recipe(data, evaluation=evaluation, **short)
    stop, calls = tmp_path / "watched", []

    def look() -> bool:  # after the step, and then in each layer
        calls.append(1)
        return len(calls) == 40

    stopped = worker(recipe.model_dump(), str(stop), device="cpu", should_stop=look)
    assert stopped.interrupted and stopped.step == 2 and not stopped.metrics
    ended = run_local(recipe, str(stop), device="cpu")
    assert not ended.interrupted
    assert {"HOTA", "MOTA", "IDF1", "DetA", "AssA", "IDSW"} <= ended.metrics.keys()
    assert read_document(str(stop / "final" / "card.json"))["metrics"] == ended.metrics
    run_local(ipmot_recipe(data, **short), str(tmp_path / "unwatched"), device="cpu")
    assert result(tmp_path / "unwatched") == result(stop)


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"benchmark": "mot18"}, r"evaluation\.benchmark: there is no benchmark 'mot18'; did you mean 'mot1"),
        ({"gt": "no_such_folder"}, "evaluation: .*no_such_folder"),
        ({"gt": "GT", "sequences": ["MOT17-03"]}, "evaluation: .*unknown sequence 'MOT17-03'; did you mean 'MOT17-01'"),
        ({"gt": "GT", "frames": "9:"}, "evaluation: .*there is no frame to track"),
        ({"gt": "GT", "frames": "some"}, "evaluation: .*frames: should be FROM:TO"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_a_step(
    evaluation: dict[str, Any], message: str, data: str, tmp_path: Path
) -> None:
    make_mot(tmp_path / "mot", "MOT17-01", num_frames=3)
    if evaluation.get("gt") == "GT":
        evaluation = {**evaluation, "gt": str(tmp_path / "mot")}
    with pytest.raises(ConfigError, match=message):
        prepare_training(ipmot_recipe(data, evaluation=evaluation), str(tmp_path / "run"), 1, build=False)


def test_another_clip_than_is_named_is_told_by_its_sizes(data: str, trackbook: dict[str, Any], tmp_path: Path) -> None:
    sizes = {**SIZES, "image.patch": 16}
    recipe = ipmot_recipe(data, loss=ALIGNED, trackbook={**trackbook, "clip_changes": sizes})
    with pytest.raises(ConfigError, match=r"trackbook\.clip_weights: .*: image\.patch = 32 instead of 16; name yours"):
        prepare_training(recipe, str(tmp_path / "run"), 1)


def test_zero_3_and_random_weights_in_frozen_parts_are_told(data: str, tmp_path: Path) -> None:
    zero_3 = ipmot_recipe(data, engine={"name": "deepspeed", "zero_stage": 3})
    with pytest.raises(ConfigError, match=r"engine\.zero_stage = 3: .*frame after frame.*set it to 2"):
        prepare_training(zero_3, str(tmp_path / "run"), 1, build=False)
    frozen = ipmot_recipe(data, model={"freeze": ["detector.backbone"]}, optim={"groups": []})
    with pytest.warns(UserWarning, match="the frozen backbone parts of ip_mot_tiny have random weights"):
        prepare_training(frozen, str(tmp_path / "run"), 1)
