"""`negatives = "batch"` on two ranks with half of the pictures each: losses, gradients and weights as on one rank."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trackmill.models.masa.losses import LossSettings, Targets, masa_losses
from trackmill.models.masa.model import Masa
from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.base import EngineSettings, OptimSettings

STEPS = 3
OBJECTS = (3, 0, 5, 2)
"""Objects of each picture of the batch; the two ranks hold neither equally many objects nor equally many pairs."""
VIDEOS = (("a", "b"), ("c", "c"), ("d", "d"), ("b", "e"))
"""The first picture and the last, on the other rank, share a video."""
SETTINGS = {
    "released": LossSettings(detection=False, negatives="batch", symmetric=True, ignore_iou=0.3),
    "paper": LossSettings(detection=False, negatives="batch", contrast="paper", auxiliary_weight=0.0),
}


class Embedder(nn.Module):
    """Stands for the model: what the losses ask of it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Conv2d(3, 6, 1), nn.Linear(10, 5)

    def track_features(self, images: Tensor) -> list[Tensor]:
        """One level."""
        return [self.mix(images / 255)]

    def embed_levels(self, levels: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
        """From the picture's mean and the box."""
        means = levels[0].mean(dim=(2, 3))
        return [self.head(torch.cat([mean.expand(len(each), -1), each / 8], dim=1)) for mean, each in zip(means, boxes)]


class Contrast(TrainingModule):
    """The losses of a batch."""

    def __init__(self, settings: LossSettings) -> None:
        super().__init__()
        self.network, self.settings = Embedder(), settings

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """See `TrainingModule.forward`."""
        model = cast(Masa, self.network)
        return masa_losses(model, *batch["images"], *batch["targets"], generator, settings=self.settings)


def pictures(step: int, own: slice) -> dict[str, Any]:
    """Some pictures of the batch of a step, two views each."""
    generator = torch.Generator().manual_seed(step)
    views: list[list[Any]] = [[], []]
    for count, videos in zip(OBJECTS, VIDEOS):
        for view in views:
            corner = torch.rand(count, 2, generator=generator) * 8
            boxes = torch.cat([corner, corner + 1 + 4 * torch.rand(count, 2, generator=generator)], dim=1)
            targets = Targets(boxes=boxes, ids=torch.arange(1, count + 1), groups=videos)
            view.append((torch.rand(3, 8, 8, generator=generator) * 255, targets))
    return {
        "images": [torch.stack([image for image, _ in view[own]]) for view in views],
        "targets": [[targets for _, targets in view[own]] for view in views],
    }


def train(kind: str, rank: int, world: int, accumulate: int = 1) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """What the steps gave, and the weights after them."""
    torch.manual_seed(0)
    optim = OptimSettings(name="sgd", lr=0.1, clip_norm=0.0, accumulate=accumulate)
    engine = make_engine(Contrast(SETTINGS[kind]), EngineSettings(), optim, torch.device("cpu"), rank, world)
    share, rows = len(OBJECTS) // (world * accumulate), []
    for step in range(STEPS):
        for micro in range(accumulate):
            part = micro * world + rank
            losses = engine.forward(pictures(step, slice(part * share, (part + 1) * share)), torch.Generator())
            engine.backward(losses["total"], last=micro == accumulate - 1)
        rows.append({name: float(value.detach()) for name, value in losses.items()} | {"norm": engine.step(0.1)})
    weights = {name: each.detach().clone() for name, each in engine.module.state_dict().items()}
    engine.close()
    return rows, weights


def _rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(minutes=8))
    for kind in SETTINGS:
        rows, weights = train(kind, rank, world)
        Path(folder, f"{kind}-{rank}.json").write_text(json.dumps(rows))
        save_file(weights, f"{folder}/{kind}-{rank}.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.set_forkserver_preload([__name__, "torch._dynamo"])
    multiprocessing.start_processes(_rank, args=(2, str(folder)), nprocs=2, start_method="forkserver")
    return folder


@pytest.mark.parametrize("kind", SETTINGS)
def test_two_ranks_with_halves_learn_what_one_rank_learns(kind: str, two_ranks: Path) -> None:
    rows, weights = train(kind, 0, 1)
    for rank in (0, 1):
        for mine, other in zip(json.loads((two_ranks / f"{kind}-{rank}.json").read_text()), rows, strict=True):
            assert mine == pytest.approx(other, rel=1e-4, abs=1e-6)
        for name, values in load_file(two_ranks / f"{kind}-{rank}.safetensors").items():
            torch.testing.assert_close(values, weights[name], rtol=1e-5, atol=1e-6, msg=name)
    assert rows[0]["effective_negatives"] > 2, "more than one picture has"


def test_accumulation_sees_its_own_part_only() -> None:
    """It is said so where the setting is explained; on resume `optim.accumulate` has to agree."""
    assert (
        train("released", 0, 1, accumulate=2)[0][0]["effective_negatives"]
        < (train("released", 0, 1)[0][0]["effective_negatives"])
    )
