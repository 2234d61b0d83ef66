"""Training of the tiny module by any engine on any number of ranks, each a process of its own; no ports."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file, save_file

from tests.training.tiny_module import part, tiny_batch, tiny_module
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.engines.base import EngineSettings, EngineState, OptimSettings

CPU = torch.device("cpu")


@dataclass(kw_only=True)
class Run:
    """Some steps of training.

    Args:
        engine, optim: settings.
        first, steps: number of the first step, and how many there are.
        lr: of all steps.
        batch_norm, noise: see `TinyModule`.
        seldom: for each rank, whether its batches use the head that is seldom used.
        seldom_later: the same from step 2 on, where it changes.
        load, save: folder of a state to start from, and one to leave it in.
    """

    engine: EngineSettings
    optim: OptimSettings
    first: int = 0
    steps: int = 4
    lr: float = 0.05
    batch_norm: bool = False
    noise: float = 0.0
    seldom: tuple[float, ...] = (1.0,)
    seldom_later: tuple[float, ...] = ()
    load: str = ""
    save: str = ""


@dataclass(kw_only=True)
class Outcome:
    """What a run showed: losses of each step (mean over ranks and parts), norms, and its state on rank 0."""

    losses: list[float]
    norms: list[float]
    state: EngineState | None


def train(run: Run, rank: int = 0, world: int = 1) -> Outcome:
    """Train; of each batch of 8 every rank takes its part, and of that each micro batch its own."""
    engine = make_engine(tiny_module(run.batch_norm, run.noise), run.engine, run.optim, CPU, rank, world)
    if run.load:
        engine.load(read_state(run.load))
    losses, norms = [], []
    accumulate = run.optim.accumulate
    for step in range(run.first, run.first + run.steps):
        uses = run.seldom_later if run.seldom_later and step >= 2 else run.seldom
        whole = tiny_batch(step, seldom=uses[rank % len(uses)])
        total = 0.0
        for micro in range(accumulate):
            # The parts of all ranks in one micro batch are neighbours, as the loader cuts them.
            batch = part(whole, micro * world + rank, accumulate * world)
            outputs = engine.forward(batch, torch.Generator().manual_seed(1000 * step + 10 * micro + rank))
            engine.backward(outputs["total"], last=micro == accumulate - 1)
            total += float(outputs["total"].detach()) / accumulate
        norms.append(engine.step(run.lr))
        mean = torch.tensor(total, dtype=torch.float64)
        if world > 1:
            dist.all_reduce(mean)
        losses.append(float(mean) / world)
    state = engine.state()
    engine.close()
    if run.save and state is not None:
        write_state(state, run.save)
    return Outcome(losses=losses, norms=norms, state=state)


def train_on_ranks(runs: list[Run], world: int, folder: Path) -> list[Outcome]:
    """Make the runs one after the other on `world` new processes; states come back where a run saves them."""
    folder.mkdir(parents=True, exist_ok=True)
    # A server that has imported everything once forks the ranks: a busy machine takes half a minute for each import.
    multiprocessing.set_forkserver_preload([__name__, "torch._dynamo"])
    multiprocessing.start_processes(_rank, args=(world, runs, str(folder)), nprocs=world, start_method="forkserver")
    stored = json.loads((folder / "outcomes.json").read_text())
    return [
        Outcome(losses=losses, norms=norms, state=read_state(run.save) if run.save else None)
        for run, (losses, norms) in zip(runs, stored, strict=True)
    ]


def _rank(rank: int, world: int, runs: list[Run], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    if world > 1:
        store = dist.FileStore(f"{folder}/store", world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(minutes=8))
    outcomes = [train(run, rank, world) for run in runs]
    if rank == 0:
        Path(folder, "outcomes.json").write_text(json.dumps([(each.losses, each.norms) for each in outcomes]))
    dist.destroy_process_group()


def write_state(state: EngineState, folder: str) -> None:
    """As a checkpoint does, in short."""
    os.makedirs(folder, exist_ok=True)
    save_file({name: each.contiguous() for name, each in state.parameters.items()}, f"{folder}/model.safetensors")
    save_file({name: each.contiguous() for name, each in state.moments.items()}, f"{folder}/moments.safetensors")
    Path(folder, "numbers.json").write_text(json.dumps(state.numbers))


def read_state(folder: str) -> EngineState:
    """What `write_state` wrote."""
    numbers: dict[str, Any] = json.loads(Path(folder, "numbers.json").read_text())
    return EngineState(
        parameters=load_file(f"{folder}/model.safetensors"),
        moments=load_file(f"{folder}/moments.safetensors"),
        numbers=numbers,
    )
