"""How large a pool is: GPUs of each worker, workers for a cluster, and after how many items one is replaced."""

from __future__ import annotations

from collections.abc import Mapping

from trackmill.pipeline.workers.settings import PoolSettings

RECYCLE_AFTER = 2000
"""Items, unless something else is set."""


def gpus_each(settings: PoolSettings, uses_gpu: bool, resources: Mapping[str, float]) -> float:
    """GPUs for each worker: as set; else one, where the cluster has any and the proposer gains from it.

    Args:
        settings: `gpus_per_actor`.
        uses_gpu: whether the proposer gains from a GPU.
        resources: of the cluster, by Ray's names (`CPU`, `GPU`).
    """
    if settings.gpus_per_actor >= 0:
        return settings.gpus_per_actor
    return 1 if uses_gpu and resources.get("GPU", 0) else 0


def pool_size(settings: PoolSettings, gpus: float, resources: Mapping[str, float]) -> int:
    """Workers for a cluster: as set; else as many as its GPUs, or where they need none its CPUs, have room for.

    Args:
        settings: `actors`, `cpus_per_actor`.
        gpus: of each worker.
        resources: of the cluster at this moment.
    """
    if settings.actors:
        return settings.actors
    if gpus:
        return max(1, int(resources.get("GPU", 0) / gpus))
    return max(1, int(resources.get("CPU", 1) / max(settings.cpus_per_actor, 0.01)))


def recycle_after(settings: PoolSettings, gpus: float) -> int:
    """Items after which a worker is replaced; 0: never. Unless set, one that holds a GPU is not: the GPU would wait."""
    if settings.recycle_after >= 0:
        return settings.recycle_after
    return 0 if gpus else RECYCLE_AFTER
