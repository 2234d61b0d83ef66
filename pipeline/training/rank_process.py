"""A rank as a process: its number, its device, and the process group that torchrun's variables describe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from trackmill.schemas.config import ConfigError

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun sets for each rank."""
COLLECTIVE_TIMEOUT = timedelta(hours=6)
"""Ranks wait for each other no longer than this. Others wait while rank 0 evaluates, so it is long; that something
hangs is the watchdog's to say, much earlier."""


def ranks_around() -> tuple[int, int]:
    """Rank and number of ranks that torchrun has set in the environment; (0, 1) where it has not."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def find_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device; one GPU for each rank of a machine.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name != "auto" and not name.startswith("cuda"):
        raise ConfigError(f"--device {name}: should be auto, cpu, cuda or cuda:N")
    index = int(name.partition(":")[2] or os.environ.get("LOCAL_RANK", "0"))
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise ConfigError(f"--device {name}: this machine has {torch.cuda.device_count()} GPUs; try --device cpu")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def check_torchrun() -> None:
    """Whether this process is a rank that torchrun, or somebody with the same variables, has started.

    Raises:
        ConfigError: it is not; names the variables that are missing.
    """
    missing = [name for name in TORCHRUN if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"--launcher torchrun: {', '.join(missing)} not set, so torchrun has not started this process: torchrun "
            "--nproc-per-node 8 jobs/train.py --launcher torchrun ..."
        )


@contextlib.contextmanager
def process_group(device: str) -> Iterator[None]:
    rank, world = ranks_around()
    if world == 1 or dist.is_initialized():
        yield
        return
    backend = "nccl" if find_device(device).type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT, rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()
