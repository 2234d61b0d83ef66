"""Making a sidecar for shards that lie there: unit by unit, in this process or on Ray, resumed where it stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from trackmill.pipeline.console.disk_space import free_bytes
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.sidecars.about import begin_sidecar
from trackmill.pipeline.sidecars.part import PartAbout
from trackmill.pipeline.sidecars.part_work import PartResult, PartUnit, SidecarWork, part_units
from trackmill.pipeline.sidecars.parts import check_parts, dataset_fingerprint, part_tasks
from trackmill.pipeline.sidecars.requests import Request, request_sidecar
from trackmill.pipeline.sidecars.settings import SidecarRunSettings
from trackmill.pipeline.sidecars.worker import PartWorker
from trackmill.pipeline.storage.credentials import storage_environment
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.output_lock import locked
from trackmill.pipeline.workers.forecast import Forecast, Group, extrapolate, spread
from trackmill.pipeline.workers.inline import InlineWorker
from trackmill.pipeline.workers.task import Tick

if TYPE_CHECKING:
    from trackmill.pipeline.workers.pool import WorkerPool


@dataclass(slots=True, kw_only=True)
class SidecarOutcome:
    """What a run amounts to.

    Args:
        name, fingerprint: of the sidecar.
        parts: of the whole sidecar, once all are made.
        done_before: parts that were there already.
        made: results of this run, in the order in which they came.
        quarantined_before: samples that are quarantined in the parts that this run did not make.
    """

    name: str
    fingerprint: str
    parts: int
    done_before: int
    made: list[PartResult] = field(default_factory=list)
    quarantined_before: int = 0

    @property
    def failed(self) -> list[PartResult]:
        """Parts that could not be made."""
        return [result for result in self.made if result.failed]

    @property
    def counts(self) -> dict[str, int]:
        """What the producer counted in this run, summed."""
        total: Counter[str] = Counter()
        for result in self.made:
            for name, count in result.counts.items():
                total[name] += count
        return dict(total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A sidecar that was begun, and what is left to be made of it.

    Args:
        layout: of the data set.
        work: for workers.
        settings: how it is run.
        todo: the parts that are to be made now.
        parts: of the whole sidecar.
        there: what those that are there say about themselves, by file name.
        samples, frames: of the whole data set.
        frames_there: of the samples in parts that stay as they are.
        only_quarantined: parts that are there are made again because samples are quarantined in them.
    """

    layout: Layout
    work: SidecarWork
    settings: SidecarRunSettings
    todo: Sequence[PartUnit]
    parts: int
    there: Mapping[str, PartAbout]
    samples: int
    frames: int
    frames_there: int
    only_quarantined: bool

    @property
    def name(self) -> str:
        """Of the sidecar."""
        return self.work.job.name

    def quarantined_elsewhere(self) -> int:
        """Samples that are quarantined in parts which are not made now."""
        now = {unit.part.file_name for unit in self.todo}
        return sum(len(about.quarantined) for name, about in self.there.items() if name not in now)


Executor: TypeAlias = "InlineWorker[PartResult] | WorkerPool[PartResult]"


def prepare_sidecar(
    root: str,
    request: Request,
    settings: SidecarRunSettings | None = None,
    *,
    only_quarantined: bool = False,
    store: bool = True,
) -> Making:
    """Begin a sidecar, or look at what is there of one that was begun.

    Args:
        root: URL of the data set, which mining wrote.
        request: see `trackmill.pipeline.sidecars.requests.request_sidecar`.
        settings: how it will be run.
        only_quarantined: make only those parts again in which samples are quarantined.
        store: without it nothing is written.

    Raises:
        FileNotFoundError, BadReceipt: there is no data set, or a receipt is damaged.
        InputError: shards without receipts.
        SidecarError: begun with other settings, or a part that is there describes other shards; names it.
    """
    settings = settings or SidecarRunSettings()
    dataset = open_dataset(root)
    fingerprint = dataset_fingerprint(dataset)
    assert dataset.layout is not None
    layout = dataset.layout
    job = begin_sidecar(layout, request, fingerprint, store)
    tasks = part_tasks(dataset.shards)
    there = check_parts(layout, request.name, tasks) if exists(layout.sidecar_about(request.name)) else {}
    todo = [task for task in tasks if task.file_name not in there]
    if only_quarantined:
        todo = [task for task in tasks if task.file_name in there and there[task.file_name].quarantined]
    units = list(part_units(todo, dataset.stored))
    frames = sum(row.frames for row in dataset.stored)
    return Making(
        layout=layout,
        work=SidecarWork(
            root=layout.root,
            dataset=fingerprint,
            job=job,
            environment=storage_environment(),
            item_timeout_s=settings.item_timeout_s,
            threads=settings.threads,
        ),
        settings=settings,
        todo=units,
        parts=len(tasks),
        there=there,
        samples=len(dataset.stored),
        frames=frames,
        frames_there=frames - sum(unit.frames for unit in units),
        only_quarantined=only_quarantined,
    )


def make_parts(
    making: Making,
    on_part: Callable[[PartResult], None] = lambda result: None,
    on_tick: Tick = lambda states: None,
    start: Callable[[Making, Tick], tuple[Executor, int, float]] | None = None,
) -> SidecarOutcome:
    """Make what is left to be made.

    Args:
        making: see `prepare_sidecar`.
        on_part: called after each part.
        on_tick: called about twice a second with the state of every worker, perhaps from another thread.
        start: starts the workers; `make_executor` unless given. A sidecar that is complete starts none.

    Raises:
        BadRows: the producer broke its contract.
        OutputLocked: another process makes this sidecar.
        PoolFailed, StorageFailed, DeviceLost: the work cannot go on. What is made stays made.
    """
    outcome = SidecarOutcome(
        name=making.name,
        fingerprint=making.work.job.fingerprint,
        parts=making.parts,
        done_before=len(making.there),
        quarantined_before=making.quarantined_elsewhere(),
    )
    if making.todo:
        with locked(making.layout.sidecar(making.name), "sidecar") as lock:
            executor, _, _ = (start or make_executor)(making, on_tick)
            for result in executor.run(making.todo):
                outcome.made.append(result)
                on_part(result)
                lock.check()
    return outcome


def make_executor(making: Making, on_tick: Tick) -> tuple[Executor, int, float]:
    """Who makes the parts, as the settings say; the number of workers, and of their GPUs."""
    if making.settings.executor == "inline":
        grace_s = making.settings.grace_s
        return InlineWorker(lambda: PartWorker(making.work), on_tick, PartUnit.doing, grace_s), 1, 0
    from trackmill.pipeline.sidecars.pool import SidecarPool

    pool = SidecarPool(making.work, making.settings, on_tick)
    return pool, pool.size, pool.gpus


def forecast_sidecar(making: Making, usd_per_gpu_hour: float | None = None) -> Forecast:
    """Time a few samples, and say what the parts that are left would take; nothing is written."""
    executor, workers, gpus = make_executor(making, lambda states: None)
    items = [item for unit in making.todo for item in unit.items]
    groups = []
    for own in ([item for item in items if item.frames == 1], [item for item in items if item.frames != 1]):
        if own:  # pictures and clips: a frame of a clip is looked at together with others
            groups.append(Group(sum(item.frames for item in own), [own[place] for place in spread(len(own))]))
    made = extrapolate(
        groups,
        executor.measure,
        items=len(items),
        units=len(making.todo),
        workers=workers,
        gpus=gpus,
        usd_per_gpu_hour=usd_per_gpu_hour,
    )
    return replace(made, free=free_bytes(making.layout.root), things="samples", done="used", files="parts")


def make_sidecar(
    root: str,
    name: str,
    producer: str = "",
    settings: dict[str, Any] | None = None,
    *,
    executor: Literal["inline", "ray"] = "inline",
    workers: int = 0,
    only_quarantined: bool = False,
    on_start: Callable[[int, int], None] | None = None,
    on_part: Callable[[PartResult], None] | None = None,
) -> SidecarOutcome:
    """Make the parts of a sidecar that are missing. The same call again does nothing.

    Args:
        root: URL of the data set, which mining wrote.
        name: of the sidecar.
        producer: a name in `PRODUCERS` or `my_package.my_module:Class`; empty: it is called like the sidecar.
        settings: of the producer, as plain values.
        executor: `inline`: this process; `ray`: a pool of actors.
        workers: actors; 0: one per GPU where the producer gains from one, else one per CPU.
        only_quarantined: make only those parts again in which samples are quarantined.
        on_start: called with the parts to make and the samples in them, before the first is made.
        on_part: called after each part.

    Raises:
        InputError: an unknown producer or setting.
        Exception: see `prepare_sidecar` and `make_parts`. What is made stays made.
    """
    run = SidecarRunSettings(executor=executor, actors=workers)
    request = request_sidecar(name, producer, settings or {})
    making = prepare_sidecar(root, request, run, only_quarantined=only_quarantined)
    if on_start:
        on_start(len(making.todo), sum(len(unit.items) for unit in making.todo))
    return make_parts(making, on_part or (lambda result: None))
