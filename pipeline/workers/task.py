"""What passes between a driver and its workers: a unit to do, what a worker is at, and what can go wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

from trackmill.pipeline.workers.work_times import WorkTimes
from trackmill.schemas.errors import JobError, StorageError
from trackmill.schemas.media import WorkItem


class WorkFailed(JobError):
    """The run cannot go on, through no fault of an item. What is done stays done."""


class StorageFailed(WorkFailed, StorageError):
    """A finished file could not be written: the unit is tried again, no item is to blame.

    `may_pass`: for want of room, or because a store refuses; see `trackmill.pipeline.workers.output_pause`.
    """

    may_pass = False


class DeviceLost(WorkFailed):
    """The accelerator is in a state that only a new process can leave; the worker must be replaced."""


class UnitDropped(WorkFailed):
    """The worker was told to end, and gives a unit back that it has no time for; nobody is to blame."""


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

    doing: ClassVar[str] = "mining it"
    """What is done to an item, for messages."""

    unit: int
    items: list[WorkItem]
    positions: list[int]
    retry: int = 0
    poisoned: dict[int, str] = field(default_factory=dict)
    overdue: frozenset[int] = frozenset()
    serial: bool = False
    signatures: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """What messages call the unit."""
        return f"unit {self.unit}"


@dataclass(frozen=True, slots=True)
class Counts:
    """What is done of a unit so far."""

    items: int = 0
    frames: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What a worker is doing at this moment, for progress and the watchdog.

    Args:
        unit: that is worked on, or was last; -1: none.
        items_done, frames_done, quarantined: of that unit.
        stage, source_id: what has been going on for the longest, and with which item.
        since: when that began, in seconds since 1970.
        publishing: counts of units whose items are done, but whose receipt is not written yet.
    """

    unit: int = -1
    items_done: int = 0
    frames_done: int = 0
    quarantined: int = 0
    stage: str = "idle"
    source_id: str = ""
    since: float = field(default_factory=time.time)
    publishing: dict[int, Counts] = field(default_factory=dict)

    def only(self, units: Container[int]) -> Status | None:
        """Without the counts of units that are not among these; None where nothing is left."""
        publishing = {unit: counts for unit, counts in self.publishing.items() if unit in units}
        if self.unit in units:
            return replace(self, publishing=publishing)
        if not publishing:
            return None
        return replace(self, unit=-1, items_done=0, frames_done=0, quarantined=0, publishing=publishing)

    def counts(self) -> Counts:
        """Of all units together."""
        others = self.publishing.values()
        return Counts(
            self.items_done + sum(each.items for each in others),
            self.frames_done + sum(each.frames for each in others),
            self.quarantined + sum(each.quarantined for each in others),
        )


class UnitDone(Protocol):
    """What a worker answers when a unit is done."""

    @property
    def times(self) -> WorkTimes:
        """What its seconds were spent on since it was ready, or since its answer before this one."""
        ...


class Job(Protocol):
    """What is the same for all units; plain values, so that it travels."""

    @property
    def environment(self) -> dict[str, str]:
        """Storage credentials and settings of the driver's environment."""
        ...


Tick = Callable[[dict[str, Status]], None]
"""Called about twice a second with the state of every worker, by its name."""
