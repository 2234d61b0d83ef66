"""How large a pool is, by its settings and by what the cluster has."""

from __future__ import annotations

import pytest

from trackmill.pipeline.mining.settings import RunSettings
from trackmill.pipeline.workers.sizing import gpus_each, pool_size, recycle_after


@pytest.mark.parametrize(
    ("setting", "uses_gpu", "resources", "expected"),
    [
        (-1, True, {"CPU": 8, "GPU": 2}, 1),
        (-1, True, {"CPU": 8}, 0),  # the proposer then runs on CPUs
        (-1, False, {"CPU": 8, "GPU": 2}, 0),
        (0.5, False, {"CPU": 8}, 0.5),  # GPU nodes may be still to come
        (0, True, {"GPU": 2}, 0),
    ],
)
def test_gpus_of_a_worker(setting: float, uses_gpu: bool, resources: dict[str, float], expected: float) -> None:
    assert gpus_each(RunSettings(gpus_per_actor=setting), uses_gpu, resources) == expected


@pytest.mark.parametrize(
    ("settings", "gpus", "resources", "expected"),
    [
        ({}, 0, {"CPU": 8.0}, 8),
        ({"cpus_per_actor": 3}, 0, {"CPU": 8.0}, 2),
        ({}, 1, {"CPU": 64.0, "GPU": 4.0}, 4),
        ({}, 0.5, {"GPU": 4.0}, 8),
        ({"actors": 5}, 1, {"GPU": 2.0}, 5),  # what is set is set; the fifth waits for a GPU
        ({"cpus_per_actor": 0}, 0, {"CPU": 0.0}, 1),  # a cluster that is only a head
    ],
)
def test_size_of_the_pool(settings: dict[str, float], gpus: float, resources: dict[str, float], expected: int) -> None:
    assert pool_size(RunSettings(**settings), gpus, resources) == expected


@pytest.mark.parametrize(
    ("setting", "gpus", "expected"),
    [
        (-1, 0, 2000),
        (-1, 1, 0),  # its GPU would wait while another process loads the model
        (-1, 0.5, 0),
        (0, 0, 0),
        (7, 0, 7),
        (7, 1, 7),  # what is set is set
    ],
)
def test_when_workers_are_replaced(setting: int, gpus: float, expected: int) -> None:
    assert recycle_after(RunSettings(recycle_after=setting), gpus) == expected
