"""Every loss on two ranks with half of the clips each: the loss, the gradients and the statistics of one rank.

Behind a linear map, and two of them behind a small ScaleTrack, in whose batches the ranks pad to unequal lengths. And
IP-MOT with its TrackBook: other sizes, lengths and numbers of people on each rank, and a clip without anybody.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.losses.test_chain import batch_of, random_clip
from tests.tasks.ipmot_batches import made_batch, made_clip, small_training
from tests.tasks.test_scaletrack_module import example, training
from trackmill.models.losses.objects import clip_objects
from trackmill.models.losses.rivals import LOSSES
from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.tasks.scaletrack.batch import join_clips
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.base import EngineSettings, OptimSettings

CLIPS = ((3, 0.2), (4, 1.0), (5, 0.1), (2, 0.0))
"""Frames and share of missing boxes; one clip of the first rank has no box, and the ranks have unequal numbers."""
STEPS, LR = 2, 0.01
IPMOT_LR = 1e-4
"""Its gradients are hundreds, and rounding grows with each step."""


class Contrast(TrainingModule):
    """A linear map before a loss."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.network, self.kind = nn.Linear(5, 4), kind

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """See `TrainingModule.forward`."""
        (embeddings, frame, identity, negatives, negative_frame), which = batch
        rows, others = self.network(embeddings), self.network(negatives)
        contrast = LOSSES[self.kind](
            clip_objects(rows, frame, identity, others, negative_frame, **which), 0.2, generator
        )
        return {"total": contrast.loss, **contrast.statistics}


NETWORKS = {"chain of ScaleTrack": "chain", "global_infonce of ScaleTrack": "global_infonce"}
IPMOT = {"IP-MOT": 1, "IP-MOT in two parts": 2}
"""Micro batches of a step."""
CASES = [*LOSSES, *NETWORKS, *IPMOT]
STAGES = (2,)
"""Of ZeRO."""


def batch_of_step(case: str, step: int, own: slice) -> Any:
    """What `own` of the clips of a step are."""
    if case in IPMOT:
        people = [((0, 1, 2), (0, 2, 3)), ((), ()), ((0,), (0,), (0, 1)), ((4, 5),)]
        return made_batch(*[made_clip(place, ids, static=place == 2) for place, ids in enumerate(people)][own])
    if case in NETWORKS:
        ids = [[[0, 1, -1], [1, 0]], [[0], [1], [-1]], [[0, 1, 2], [2, 1, -1], [1], [1, 2]], [[3, 4], [4, -1]]]
        return join_clips([example(10 * step + place, frames) for place, frames in enumerate(ids)][own])
    clips = [random_clip(step, frames, 4, missing, False) for frames, missing in CLIPS]
    return batch_of([tuple(each.detach() for each in clip) for clip in clips[own]])


def train(
    kind: str, rank: int, world: int, settings: EngineSettings | None = None
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """What the steps gave, and the weights after them."""
    torch.manual_seed(0)
    optim = OptimSettings(name="sgd", lr=LR, clip_norm=0.0, accumulate=IPMOT.get(kind, 1))
    module: TrainingModule = Contrast(kind)
    if kind in NETWORKS:
        module = training(NETWORKS[kind])
    elif kind in IPMOT:
        module = small_training()
    engine = make_engine(module, settings or EngineSettings(), optim, torch.device("cpu"), rank, world)
    parts = optim.accumulate
    share, rows = len(CLIPS) // world // parts, []
    for step in range(STEPS):
        row: dict[str, float] = {}
        for part in range(parts):
            first = (part * world + rank) * share
            batch = batch_of_step(kind, step, slice(first, first + share))
            losses = engine.forward(batch, torch.Generator().manual_seed(100 * step + rank))
            engine.backward(losses["total"], last=part + 1 == parts)
            row = {name: row.get(name, 0) + float(value.detach()) / parts for name, value in losses.items()}
        rows.append(row | {"norm": engine.step(IPMOT_LR if kind in IPMOT else LR)})
    state = engine.state()  # of rank 0
    weights = {} if state is None else {name: each.clone() for name, each in state.parameters.items()}
    engine.close()
    return rows, weights


def _zero_rank(rank: int, world: int, folder: str) -> None:
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(minutes=8))
    for stage in STAGES:
        for kind in (*NETWORKS, *IPMOT):
            settings = EngineSettings(name="deepspeed", zero_stage=stage)  # type: ignore[arg-type]
            rows, weights = train(kind, rank, world, settings)
            if rank == 0:
                Path(folder, f"{kind}-{stage}.json").write_text(json.dumps(rows))
                save_file(weights, f"{folder}/{kind}-{stage}.safetensors")
    dist.destroy_process_group()


def _rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(minutes=8))
    for kind in CASES:
        rows, weights = train(kind, rank, world)
        Path(folder, f"{kind}-{rank}.json").write_text(json.dumps(rows))
        if rank == 0:
            save_file(weights, f"{folder}/{kind}.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.set_forkserver_preload([__name__, "torch._dynamo"])
    multiprocessing.start_processes(_rank, args=(2, str(folder)), nprocs=2, start_method="forkserver")
    return folder


@pytest.mark.parametrize("kind", CASES)
def test_two_ranks_with_halves_learn_what_one_rank_learns(kind: str, two_ranks: Path) -> None:
    rows, weights = train(kind, 0, 1)
    ranks = [json.loads((two_ranks / f"{kind}-{rank}.json").read_text()) for rank in (0, 1)]
    for mine, one, two in zip(rows, *ranks, strict=True):
        for name in ("total", "positives_detect" if kind in IPMOT else "positives"):
            assert (one[name] + two[name]) / 2 == pytest.approx(mine[name], rel=1e-4, abs=1e-6)
        assert one["norm"] == two["norm"] == pytest.approx(mine["norm"], rel=1e-4)
        if kind.startswith("global"):
            assert one == two, "every rank has the whole batch"
        else:
            assert one["total"] != two["total"]
    for name, values in load_file(two_ranks / f"{kind}.safetensors").items():
        torch.testing.assert_close(values, weights[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed compiles an operator, and there is no g++")
def test_zero_on_two_ranks_learns_what_one_rank_learns(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    multiprocessing.set_forkserver_preload([__name__, "torch._dynamo"])
    multiprocessing.start_processes(_zero_rank, args=(2, str(tmp_path)), nprocs=2, start_method="forkserver")
    for kind in (*NETWORKS, *IPMOT):
        rows, weights = train(kind, 0, 1)
        for stage in STAGES:
            found = json.loads((tmp_path / f"{kind}-{stage}.json").read_text())
            assert [row["norm"] for row in found] == pytest.approx([row["norm"] for row in rows], rel=1e-3)
            for name, values in load_file(tmp_path / f"{kind}-{stage}.safetensors").items():
                torch.testing.assert_close(values, weights[name], rtol=1e-4, atol=1e-5, msg=f"{stage}: {name}")
