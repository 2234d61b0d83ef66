"""Runs of the tiny task on several ranks, each a process of its own, without Ray and without ports."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from tests.training.tiny_runs import tiny_recipe
from trackmill.pipeline.training.launch import worker


def run_ranks(url: str, output: Path, world: int, folder: Path, **changes: Any) -> None:
    """Train to the end, or on from what there is.

    Args:
        url: of the data set.
        output: root of the run.
        world: number of ranks.
        folder: an empty one.
        changes: of the recipe.
    """
    folder.mkdir()
    multiprocessing.set_forkserver_preload([__name__, "torch._dynamo"])
    multiprocessing.start_processes(
        _rank, args=(world, url, str(output), str(folder), changes), nprocs=world, start_method="forkserver"
    )


def _rank(rank: int, world: int, url: str, output: str, folder: str, changes: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(minutes=8))
    worker(tiny_recipe(url, **changes).model_dump(), output, device="cpu")
    dist.destroy_process_group()
