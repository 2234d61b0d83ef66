"""What passes between the driver and its workers: the job, a unit to do, what became of it, and what went wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from trackmill.pipeline.sidecars.about import SidecarJob
from trackmill.schemas.errors import JobError, StorageError
from trackmill.schemas.media import WorkItem


class WorkFailed(JobError):
    """The run cannot go on, through no fault of an item. What is done stays done."""


class StorageFailed(WorkFailed, StorageError):
    """A finished shard or receipt could not be written: the unit is tried again, no item is to blame."""


class LibrariesDiffer(JobError):
    """A worker's libraries are not the driver's."""


class DeviceLost(WorkFailed):
    """The accelerator is in a state that only a new process can leave; the worker must be replaced."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTask:
    """One unit to be done.

    Args:
        unit: its number.
        items: all its items or, for a retry, the quarantined ones.
        positions: place of each item inside the whole unit.
        retry: 0 for the first time; n for the n-th `--only-quarantined` run.
        poisoned: positions that must not be touched, each with the reason why.
        overdue: those of them that hung.
        serial: read no item ahead, so that a death can be charged to one item.
        signatures: queries of the items' signed URLs.
    """

    unit: int
    items: list[WorkItem]
    positions: list[int]
    retry: int = 0
    poisoned: dict[int, str] = field(default_factory=dict)
    overdue: frozenset[int] = frozenset()
    serial: bool = False
    signatures: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(slots=True, kw_only=True)
class UnitResult:
    """What became of a unit, small enough to send: counts, and up to 20 quarantined items (id, error class, reason)."""

    unit: int
    items: int
    frames: int
    proposals: int
    statuses: dict[str, int]
    quarantined: list[tuple[str, str, str]]
    num_bytes: int
    seconds: float


@dataclass(slots=True)
class Status:
    """What a worker is doing at this moment, for progress and the watchdog."""

    unit: int = -1
    items_done: int = 0
    frames_done: int = 0
    quarantined: int = 0
    stage: str = "idle"
    source_id: str = ""
    since: float = field(default_factory=time.time)
