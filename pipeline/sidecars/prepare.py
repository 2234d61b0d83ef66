"""From a request to a sidecar that can be made: it is begun, and it is known which of its parts are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset, open_dataset
from trackmill.pipeline.sidecars.about import SidecarJob, begin_sidecar
from trackmill.pipeline.sidecars.part import PartAbout
from trackmill.pipeline.sidecars.part_work import PartTask, PartUnit, SidecarWork, part_units
from trackmill.pipeline.sidecars.parts import check_parts, dataset_fingerprint, part_tasks
from trackmill.pipeline.sidecars.requests import Request
from trackmill.pipeline.sidecars.settings import SidecarRunSettings
from trackmill.pipeline.storage.credentials import storage_environment
from trackmill.pipeline.storage.file_times import list_times
from trackmill.pipeline.storage.files import exists


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A sidecar that was begun, and what is left to be made of it.

    Args:
        layout: of the data set.
        work: for workers.
        settings: how it is run.
        tasks: the parts of the whole sidecar.
        todo: those that are to be made now; `unit` is the place among `tasks`.
        there: what those that are there say about themselves, by file name.
        written: when those that are there were written, see `stamps`; looked at before they were read.
        samples, frames: of the whole data set.
        frames_there: of the samples in parts that stay as they are.
        only_quarantined: parts that are there are made again because samples are quarantined in them.
    """

    layout: Layout
    work: SidecarWork
    settings: SidecarRunSettings
    tasks: Sequence[PartTask]
    todo: Sequence[PartUnit]
    there: Mapping[str, PartAbout]
    written: Mapping[str, str] = field(default_factory=dict)
    samples: int
    frames: int
    frames_there: int
    only_quarantined: bool

    @property
    def name(self) -> str:
        """Of the sidecar."""
        return self.work.job.name

    @property
    def folder(self) -> str:
        """URL of the sidecar."""
        return self.layout.sidecar(self.name)

    @property
    def parts(self) -> int:
        """Of the whole sidecar."""
        return len(self.tasks)

    def quarantined_elsewhere(self) -> int:
        """Samples that are quarantined in parts which are not made now."""
        now = {unit.part.file_name for unit in self.todo}
        return sum(len(about.quarantined) for name, about in self.there.items() if name not in now)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedSet:
    """A data set that a sidecar can describe.

    Args:
        dataset: opened.
        layout: of it.
        fingerprint: of it.
    """

    dataset: Dataset
    layout: Layout
    fingerprint: str


def open_mined(root: str) -> MinedSet:
    """Open a data set that a sidecar is to describe.

    Raises:
        FileNotFoundError, BadReceipt: there is no data set, or a receipt is damaged.
        InputError: shards without receipts.
    """
    dataset = open_dataset(root)
    fingerprint = dataset_fingerprint(dataset)
    assert dataset.layout is not None
    return MinedSet(dataset=dataset, layout=dataset.layout, fingerprint=fingerprint)


def prepare_sidecar(
    root: str,
    request: Request,
    settings: SidecarRunSettings | None = None,
    *,
    only_quarantined: bool = False,
    store: bool = True,
) -> Making:
    """Begin a sidecar, or look at what is there of one that was begun. Nobody else may work on it.

    Args:
        root: URL of the data set, which mining wrote.
        request: see `trackmill.pipeline.sidecars.requests.request_sidecar`.
        settings: how it will be run.
        only_quarantined: make only those parts again in which samples are quarantined.
        store: without it nothing is written.

    Raises:
        FileNotFoundError, BadReceipt, InputError: see `open_mined`.
        SidecarError: begun with other settings, or a part that is there describes other shards; names it.
    """
    mined = open_mined(root)
    job = begin_sidecar(mined.layout, request, mined.fingerprint, store)
    return look_at_parts(mined, job, settings or SidecarRunSettings(), only_quarantined)


def look_at_parts(mined: MinedSet, job: SidecarJob, settings: SidecarRunSettings, only_quarantined: bool) -> Making:
    """What is left to be made of a sidecar.

    Args:
        mined: its data set.
        job: see `begin_sidecar`.
        settings, only_quarantined: see `prepare_sidecar`.

    Raises:
        SidecarError: a part that is there is damaged, or describes other shards; names it.
    """
    layout, dataset = mined.layout, mined.dataset
    tasks = part_tasks(dataset.shards)
    written = stamps(layout, job.name)
    there = check_parts(layout, job.name, tasks) if exists(layout.sidecar_about(job.name)) else {}
    todo = {place: task for place, task in enumerate(tasks) if task.file_name not in there}
    if only_quarantined:
        bad = {name for name, about in there.items() if about.quarantined}
        todo = {place: task for place, task in enumerate(tasks) if task.file_name in bad}
    units = list(part_units(todo, dataset.stored))
    frames = sum(row.frames for row in dataset.stored)
    return Making(
        layout=layout,
        work=SidecarWork(
            root=layout.root,
            dataset=mined.fingerprint,
            job=job,
            environment=storage_environment(),
            item_timeout_s=settings.item_timeout_s,
            threads=settings.threads,
        ),
        settings=settings,
        tasks=tasks,
        todo=units,
        there=there,
        written=written,
        samples=len(dataset.stored),
        frames=frames,
        frames_there=frames - sum(unit.frames for unit in units),
        only_quarantined=only_quarantined,
    )


def stamps(layout: Layout, name: str) -> dict[str, str]:
    """What changes when a part of a sidecar is written anew, by file name; one listing."""
    return {file.name: f"{file.modified} {file.size}" for file in list_times(layout.sidecar(name))}
