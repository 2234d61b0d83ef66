"""How a pool is run: its size, what each worker may take, how often it is told how far it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trackmill.schemas.config import Settings


class PoolSettings(Settings):
    """How the work is run. None of it changes a byte of the output."""

    executor: Literal["ray", "inline"] = Field("ray", description="ray: a pool of actors; inline: this process.")
    actors: int = Field(0, ge=0, description="Size of the pool; 0: one per GPU or CPU, following the cluster.")
    gpus_per_actor: float = Field(-1, description="-1: one where the cluster has GPUs and the proposer can use one.")
    cpus_per_actor: float = Field(1, ge=0, description="CPUs that Ray reserves for each actor.")
    memory_per_actor: int = Field(0, ge=0, description="Bytes that Ray reserves for each actor; 0: none.")
    threads: int = Field(
        0, ge=0, le=65536, description="Threads that an actor's libraries may use; 0: its CPUs, at least one."
    )
    recycle_after: int = Field(
        -1,
        ge=-1,
        description="Items after which an actor is replaced; 0: never; -1: 2000, or never for one that holds a GPU. "
        "Its successor loads the model beside it where the cluster has room for one more, and else after it.",
    )
    ray_start_timeout_s: float = Field(
        600.0, gt=0, description="Seconds that Ray may take to start, or a cluster to answer, with one more try."
    )
    grace_s: float = Field(
        25.0,
        ge=0,
        description="Seconds that a job which is asked to stop (SIGTERM, Ctrl-C) has for what is in hand: units that "
        "it cannot finish by then are dropped, and done again by the next run; 0: it stops at once. Less than the "
        "scheduler gives it: Kubernetes waits for 30 s.",
    )
    progress_s: float = Field(10.0, gt=0, description="Seconds between progress lines in a log.")
    watchdog_s: float = Field(120.0, gt=0, description="Warn, naming the stage, when no item is finished for so long.")
    claim_expires_s: float = Field(
        60.0,
        ge=1,
        description="Seconds without a sign of life after which another process on the same output counts as dead, and "
        "what it had in hand is done by others.",
    )
