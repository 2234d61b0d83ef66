"""ScaleTrack in the loop: killed and resumed; and whether it learns to tell moving objects apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("albumentations")

from tests.scaletrack.small import small_model
from tests.scaletrack.test_learning import moving_objects
from tests.training.clip_runs import make_clips, scaletrack_recipe
from tests.training.tiny_runs import result, rows
from trackmill.pipeline.evaluation.association.measure import association_benchmark
from trackmill.pipeline.evaluation.association.sequences import box_sequence
from trackmill.pipeline.tasks.scaletrack.batch import ClipBatch
from trackmill.pipeline.tasks.scaletrack.evaluation import scaletrack_embedding
from trackmill.pipeline.tasks.scaletrack.module import ScaleTrackTraining
from trackmill.pipeline.tasks.scaletrack.settings import LossSection
from trackmill.pipeline.training.launch import run_local

pytestmark = pytest.mark.filterwarnings("ignore:the frozen backbone")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_clips(tmp_path_factory.mktemp("clips"))


def test_killed_in_the_middle_and_resumed_gives_the_same_to_the_bit(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"clips": {"frames": 2}, "schedule": {"steps": 4, "milestones": [3]}, "checkpoint": {"every": 2}}
    recipe = scaletrack_recipe(data, **changes)
    run_local(recipe, str(tmp_path / "whole"), device="cpu")
    forward, calls = ScaleTrackTraining.forward, iter(range(1, 100))

    def killed(self: ScaleTrackTraining, batch: ClipBatch, generator: torch.Generator) -> dict[str, Tensor]:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, batch, generator)

    monkeypatch.setattr(ScaleTrackTraining, "forward", killed)
    with pytest.raises(KeyboardInterrupt):
        run_local(recipe, str(tmp_path / "twice"), device="cpu")
    ended = run_local(recipe, str(tmp_path / "twice"), device="cpu")
    assert ended.step == 4
    assert next(calls) == 4 + 2 + 1, "step 3 was lost with the process, and done again"
    assert result(tmp_path / "twice") == result(tmp_path / "whole")
    assert rows(tmp_path / "twice") == rows(tmp_path / "whole")
    found = rows(tmp_path / "whole")
    assert {"layer_1", "layer_2", "positives", "effective_negatives", "similarity_gap", "chain_length"} <= set(found[0])
    assert all(row["positives"] >= 1 for row in found)


def test_a_short_training_raises_rank_1_of_objects_that_move() -> None:
    """Squares with textures of their own that grow darker, measured as the evaluation of a recipe does."""
    network = small_model()
    clips = [moving_objects(seed) for seed in range(4)]
    sequences = []
    for number, (frames, boxes) in enumerate(clips):
        shown, people = torch.meshgrid(torch.arange(len(boxes)), torch.arange(len(boxes[0])), indexing="ij")
        pictures = {t: (image.permute(1, 2, 0) * 255).byte().numpy() for t, image in enumerate(frames)}
        rows = boxes.flatten(0, 1).numpy()
        sequence = box_sequence(f"clip {number}", shown.flatten().numpy(), people.flatten().numpy(), rows, pictures)
        sequences.append(sequence)

    def rank_1() -> float:
        embedding = scaletrack_embedding(network.eval(), torch.device("cpu"))
        value = association_benchmark(embedding, sequences, strides=(1,), gaps=(3,)).metrics["rank1@3"]
        assert value is not None
        return value

    before = rank_1()
    module = ScaleTrackTraining(network, (), LossSection())
    optimiser = torch.optim.AdamW([each for each in module.parameters() if each.requires_grad], lr=3e-3)
    people, number = clips[0][1].shape[1], clips[0][1].shape[0]
    batch = ClipBatch(
        images=torch.stack([(frames * 255).byte() for frames, _ in clips]),
        sizes=torch.full((len(clips), 2), 64),
        boxes=torch.cat([boxes.flatten(0, 1) for _, boxes in clips]),
        frame_of_box=torch.arange(len(clips) * number).repeat_interleave(people),
        identity=torch.arange(people).repeat(len(clips) * number),
        keys=[],
    )
    for _ in range(12):
        optimiser.zero_grad()
        module.train()(batch, torch.Generator())["total"].backward()
        optimiser.step()
    assert before < 80
    assert rank_1() > before + 15
