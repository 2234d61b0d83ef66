"""What passes between the driver and its miners: the job, and what became of a unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trackmill.pipeline.sidecars.about import SidecarJob
from trackmill.pipeline.workers.work_times import WorkTimes
from trackmill.schemas.errors import JobError


class LibrariesDiffer(JobError):
    """A worker's libraries are not the driver's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MineJob:
    """What a worker needs to know, in plain values so that it travels.

    Args:
        root: root URL of the output.
        config: resolved `MineConfig`, dumped.
        fingerprint: of the run.
        libraries: versions on the driver that the worker must have too, by name.
        environment: storage credentials and settings of the driver's environment.
        sidecars: made in the same pass as the shards.
    """

    root: str
    config: dict[str, Any]
    fingerprint: str
    libraries: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    sidecars: tuple[SidecarJob, ...] = ()


@dataclass(slots=True, kw_only=True)
class UnitResult:
    """What became of a unit, small enough to send: counts, and up to 20 quarantined items (id, error class, reason).

    Args:
        seconds: from its first item to its receipt.
        times: what its worker's seconds were spent on since it was ready, or since its result before this one.
    """

    unit: int
    items: int
    frames: int
    proposals: int
    statuses: dict[str, int]
    quarantined: list[tuple[str, str, str]]
    num_bytes: int
    seconds: float
    times: WorkTimes = field(default_factory=WorkTimes)
