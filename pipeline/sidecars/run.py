"""Making a sidecar for shards that lie there: unit by unit, in this process or on Ray, resumed where it stopped."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from trackmill.pipeline.console.disk_space import free_bytes
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.sidecars.joining import JOB, join_sidecar
from trackmill.pipeline.sidecars.part import PartAbout
from trackmill.pipeline.sidecars.part_work import PartResult, PartUnit
from trackmill.pipeline.sidecars.parts import check_parts
from trackmill.pipeline.sidecars.prepare import Making
from trackmill.pipeline.sidecars.requests import request_sidecar
from trackmill.pipeline.sidecars.settings import SidecarRunSettings
from trackmill.pipeline.sidecars.sharing import SharedMaking
from trackmill.pipeline.sidecars.worker import PartWorker
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.storage.scratch import sweep_scratch
from trackmill.pipeline.storage.urls import canonical
from trackmill.pipeline.workers.forecast import Forecast, Group, extrapolate, spread
from trackmill.pipeline.workers.inline import InlineWorker
from trackmill.pipeline.workers.joining import summing_up
from trackmill.pipeline.workers.parts import Part
from trackmill.pipeline.workers.prices import NO_PRICES, Prices
from trackmill.pipeline.workers.share import shared_results
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
        left: places of the parts that are not made, in the hands of other processes or left to them.
        whole: what all parts say about themselves, where others made some of them; None: this run knows it all.
        summed_up: another process, which ended at the same moment, has looked at the whole.
    """

    name: str
    fingerprint: str
    parts: int
    done_before: int
    made: list[PartResult] = field(default_factory=list)
    quarantined_before: int = 0
    left: list[int] = field(default_factory=list)
    whole: Mapping[str, PartAbout] | None = None
    summed_up: bool = False

    @property
    def failed(self) -> list[PartResult]:
        """Parts that could not be made."""
        return [result for result in self.made if result.failed]

    @property
    def finished(self) -> bool:
        """Whether all parts are there, and this process is the one that says so."""
        return not (self.left or self.failed or self.summed_up)

    @property
    def quarantined_now(self) -> int:
        """Samples that are quarantined in the parts that this run made."""
        return sum(result.num_quarantined for result in self.made)

    @property
    def quarantined(self) -> int:
        """Samples that are quarantined in all parts that are known of."""
        if self.whole is not None:
            return sum(len(about.quarantined) for about in self.whole.values())
        return self.quarantined_now + self.quarantined_before

    @property
    def counts(self) -> dict[str, int]:
        """What the producer counted in this run, or in all parts where others made some of them; summed."""
        total: Counter[str] = Counter()
        for each in self.made if self.whole is None else self.whole.values():
            for name, count in each.counts.items():
                total[name] += count
        return dict(total)


Executor: TypeAlias = "InlineWorker[PartResult] | WorkerPool[PartResult]"


def make_parts(
    making: Making,
    on_part: Callable[[PartResult], None] = lambda result: None,
    on_tick: Tick = lambda states: None,
    start: Callable[[Making, Tick], tuple[Executor, int, float]] | None = None,
    shared: SharedMaking | None = None,
    helps: Callable[[int, int], None] = lambda samples, frames: None,
) -> SidecarOutcome:
    """Make what is left to be made.

    Args:
        making: see `join_sidecar` and `prepare_sidecar`.
        on_part: called after each part.
        on_tick: called about twice a second with the state of every worker, perhaps from another thread.
        start: starts the workers; `make_executor` unless given. A sidecar that is complete starts none.
        shared: where others may make parts of the same sidecar; None: it is this process's own.
        helps: see `SharedMaking.tasks`.

    Raises:
        BadRows: the producer broke its contract.
        PoolFailed, StorageFailed, DeviceLost: the work cannot go on. What is made stays made.
    """
    outcome = SidecarOutcome(
        name=making.name,
        fingerprint=making.work.job.fingerprint,
        parts=making.parts,
        done_before=len(making.there),
        quarantined_before=making.quarantined_elsewhere(),
    )
    if not making.todo:
        return outcome

    def run(tasks: Iterable[PartUnit]) -> Iterator[PartResult]:
        executor, _, _ = (start or make_executor)(making, on_tick)
        return executor.run(tasks)

    if shared is None:
        results = run(making.todo)
    else:
        giving = shared
        alone = making.settings.executor == "inline"
        results = shared_results(run, lambda may_wait: giving.tasks(may_wait, helps), giving.release, alone)
    for result in results:
        outcome.made.append(result)
        on_part(result)
    if shared is not None:
        outcome.left = shared.left()
        if not outcome.left and not outcome.failed:
            _sum_up(making, shared, outcome)
    return outcome


def _sum_up(making: Making, shared: SharedMaking, outcome: SidecarOutcome) -> None:
    """All is made: leave nothing of the dead, and look at what others made."""
    names = {task.claim for task in making.tasks}
    with summing_up(shared.claims, making.folder, JOB, "part", names) as (_, by_another):
        sweep_scratch(making.folder)  # a worker of a killed run may have outlived the sweep at the start
        outcome.summed_up = by_another
        if not by_another and (shared.part is not None or len(outcome.made) < len(making.todo)):
            outcome.whole = check_parts(making.layout, making.name, making.tasks)


def make_executor(making: Making, on_tick: Tick) -> tuple[Executor, int, float]:
    """Who makes the parts, as the settings say; the number of workers, and of their GPUs."""
    if making.settings.executor == "inline":
        grace_s = making.settings.grace_s
        return InlineWorker(lambda: PartWorker(making.work), on_tick, PartUnit.doing, grace_s), 1, 0
    from trackmill.pipeline.sidecars.pool import SidecarPool

    pool = SidecarPool(making.work, making.settings, on_tick)
    return pool, pool.size, pool.gpus


def forecast_sidecar(making: Making, prices: Prices = NO_PRICES) -> Forecast:
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
        cpus_each=making.settings.cpus_per_actor,
        prices=prices,
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
        Exception: see `join_sidecar` and `make_parts`. What is made stays made.
    """
    run = SidecarRunSettings(executor=executor, actors=workers)
    request = request_sidecar(name, producer, settings or {})
    with contextlib.closing(sidecar_claims(root, name, run)) as claims:
        making = join_sidecar(claims, root, request, run, only_quarantined=only_quarantined)
        if on_start:
            on_start(len(making.todo), sum(len(unit.items) for unit in making.todo))
        return make_parts(making, on_part or (lambda result: None), shared=SharedMaking(making, claims))


def sidecar_claims(root: str, name: str, settings: SidecarRunSettings, part: Part | None = None) -> Claims:
    """The claims of this process on the parts of a sidecar; to be closed.

    Args:
        root: URL of the data set.
        name: of the sidecar.
        settings: how it is run.
        part: of this process.
    """
    job = f"{JOB} part {part}" if part else JOB
    folder = Layout(canonical(root)).sidecar(name)
    return Claims(folder, job, settings.claim_expires_s, settings.executor == "inline")
