"""Mining from end to end: a prepared run to units, units to shards and receipts, receipts to manifest and card.

Every step can be interrupted anywhere and run again: what has a receipt is done, everything else is done again, and
both give the same bytes.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.console.disk_space import free_bytes, too_little_disk_space
from trackmill.pipeline.console.output import clean
from trackmill.pipeline.console.words import counted
from trackmill.pipeline.metrics.settings import make_recorder
from trackmill.pipeline.mining.executor import Executor
from trackmill.pipeline.mining.forecast import make_forecast
from trackmill.pipeline.mining.kept import sweep_kept
from trackmill.pipeline.mining.metrics import MiningMetrics
from trackmill.pipeline.mining.plan import read_plan
from trackmill.pipeline.mining.prepare import Run
from trackmill.pipeline.mining.progress import MiningProgress
from trackmill.pipeline.mining.sharing import SharedRun, first_task, retry_tasks
from trackmill.pipeline.mining.signatures import keep_signatures, recall_signatures
from trackmill.pipeline.mining.unit import UnitResult
from trackmill.pipeline.shards.card import write_card
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.manifest_source import current_manifest
from trackmill.pipeline.shards.receipt_stream import stream_receipts
from trackmill.pipeline.shards.receipts import done_units, listed_receipts
from trackmill.pipeline.shards.sweep import sweep_output
from trackmill.pipeline.shards.totals import Totals
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.secrets.signed_urls import any_signed
from trackmill.pipeline.storage.urls import basename
from trackmill.pipeline.workers.forecast import Forecast
from trackmill.pipeline.workers.joining import summing_up
from trackmill.pipeline.workers.parts import Part
from trackmill.pipeline.workers.prices import NO_PRICES, Prices
from trackmill.pipeline.workers.share import shared_results
from trackmill.pipeline.workers.task import UnitTask
from trackmill.schemas.keys import unit_name
from trackmill.schemas.receipt import ShardInfo

log = logging.getLogger("trackmill")

JOB = "mine"
"""What a mining process is called in locks and claims."""

_QUARANTINED_TOLD = 20
"""Items that are named as they are quarantined; the receipts name them all."""

_STATUS = pa.schema([("status", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished run amounts to.

    Args:
        statuses: items by status, over the whole data set.
        reasons: quarantined items by error class.
        examples: some quarantined items: source id, error class, reason.
        done_now: units done by this run; the others were done before.
        frames, proposals, negatives, num_bytes, shards: totals of the data set.
    """

    items: int
    statuses: dict[str, int]
    reasons: dict[str, int]
    examples: list[tuple[str, str, str]]
    done_now: int
    units: int
    frames: int
    proposals: int
    negatives: int
    num_bytes: int
    shards: int
    fingerprint: str


@dataclass(slots=True, kw_only=True)
class OwnOutcome:
    """What one of several processes did.

    Args:
        units, items, frames, proposals, num_bytes: that it did.
        statuses: its items by status.
        quarantined: some of its quarantined items: source id, error class, reason.
        left: units that are not done, in the hands of others or left to them.
    """

    units: int = 0
    items: int = 0
    frames: int = 0
    proposals: int = 0
    num_bytes: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    quarantined: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[int] = field(default_factory=list)

    def add(self, result: UnitResult) -> None:
        """A unit is done."""
        self.units += 1
        self.items += result.items
        self.frames += result.frames
        self.proposals += result.proposals
        self.num_bytes += result.num_bytes
        self.statuses.update(result.statuses)
        self.quarantined = [*self.quarantined, *result.quarantined][:_QUARANTINED_TOLD]


def forecast(run: Run, executor: Executor, workers: int, gpus: float, prices: Prices = NO_PRICES) -> Forecast:
    """What `run` will take; see `trackmill.pipeline.mining.forecast`."""
    made = make_forecast(run.plan, executor.measure, workers, gpus, run.config.run.cpus_per_actor, prices)
    return dataclasses.replace(made, free=free_bytes(run.layout.root))


def execute(
    run: Run,
    start_executor: Callable[[], Executor],
    progress: MiningProgress,
    only_quarantined: bool = False,
    check: Callable[[], None] = lambda: None,
    shared: SharedRun | None = None,
) -> Outcome | OwnOutcome:
    """Do what is not done yet, then write manifest and card.

    Args:
        run: see `prepare` and `reopen`.
        start_executor: called only if there is something to do, so that a finished run starts no cluster.
        progress: see `begin_progress`.
        only_quarantined: retry quarantined items, and nothing else.
        check: called after each unit, and before manifest and card; raises where the work must not go on.
        shared: where others may mine into the same output; None: the output is this process's own.

    Returns:
        What the data set amounts to; of a run that leaves units to others, what this process did.

    Raises:
        Exception: what the executor raises; everything that was done stays done.
    """
    done = done_units(run.layout)
    own = OwnOutcome()
    done_now = record = written = 0
    told_of_room = False
    for result in _results(run, start_executor, done, only_quarantined, shared, progress.grow):
        done_now += 1
        own.add(result)
        written += result.num_bytes
        left = max(0, run.plan.num_units - len(done) - done_now)
        if (
            not only_quarantined
            and not told_of_room
            and (
                said := too_little_disk_space(
                    run.layout.root, written * left // done_now, f"the rest, {counted(left, 'unit')},"
                )
            )
        ):
            log.warning("%s: free some before it is full", said)
            told_of_room = True
        progress.unit_done(result)
        for source_id, error_class, reason in result.quarantined[: max(0, _QUARANTINED_TOLD - record)]:
            log.warning("quarantined: %s: %s: %s", clean(source_id), error_class, clean(reason))
            record += 1
        check()
    progress.close()
    if shared is None:
        return _sum_up(run, done_now, check)
    own.left = shared.left()
    if own.left and not only_quarantined:
        return own
    # Nobody plans meanwhile, nor sums up: these are one file each.
    names = {unit_name(unit) for unit in done_units(run.layout)}
    with summing_up(shared.claims, run.layout.root, JOB, "unit", names) as (lock, by_another):
        if by_another and not only_quarantined:
            return own
        recall_signatures(run.layout)  # of inputs that others have added
        whole = read_plan(run.layout) if any_signed() else None
        return _sum_up(dataclasses.replace(run, plan=whole or run.plan), done_now, lock.check)


def _sum_up(run: Run, done_now: int, check: Callable[[], None]) -> Outcome:
    """Write manifest and card, the former if its receipts have changed since; see `execute`."""
    check()
    # Once more: a worker of a killed run may have outlived the sweep at the start.
    sweep_output(run.layout)
    sweep_kept(run.layout)
    lost = _LostShards(run.layout)
    if current := current_manifest(run.layout):
        totals = current.totals
        lost.look(current.shards)
    else:
        totals = write_manifest(run.layout, lambda receipt: lost.look(receipt.shards))
    lost.warn()
    keep_signatures(run.layout, run.plan, run.moved | run.retried)
    write_card(run.layout, run.config.model_dump(mode="json") | {"fingerprint": run.fingerprint}, totals)
    return _outcome(run, totals, done_now)


def begin_progress(run: Run, only_quarantined: bool = False, part: Part | None = None) -> MiningProgress:
    """A progress report that knows what earlier runs did; of a part, of its own share."""
    settings = run.config.run
    sizes = listed_receipts(run.layout)
    units = set(sizes)
    if part is not None and not only_quarantined:
        own = set(part.own(range(run.first_new_unit, run.plan.num_units))) - units
        return MiningProgress(
            run.plan.items_in(own),
            run.plan.frames_in(own),
            interval_s=settings.progress_s,
            watchdog_s=settings.watchdog_s,
        )
    if only_quarantined:
        items = frames = 0
        for task in _tasks(run, units, only_quarantined):
            items += len(task.items)
            frames += sum(item.frames for item in task.items)
        return MiningProgress(items, frames, interval_s=settings.progress_s, watchdog_s=settings.watchdog_s)
    if current := current_manifest(run.layout):
        items, quarantined = current.totals.items, current.totals.statuses["quarantined"]
    else:
        items, quarantined = done_before(run.layout, sizes)
    return MiningProgress(
        run.plan.num_items,
        run.plan.num_frames,
        done_items=items,
        done_frames=run.plan.frames_in(units),
        quarantined=quarantined,
        interval_s=settings.progress_s,
        watchdog_s=settings.watchdog_s,
    )


def done_before(layout: Layout, sizes: Mapping[int, int]) -> tuple[int, int]:
    """How many items receipts hold, and how many of them are quarantined.

    Args:
        layout: of the data set.
        sizes: receipts as listed, see `trackmill.pipeline.shards.receipts.listed_receipts`.

    Raises:
        BadReceipt: one of them is damaged.
    """
    items = quarantined = 0
    for receipt in stream_receipts(layout, sizes, _STATUS):
        items += len(receipt.table)
        quarantined += pc.sum(pc.equal(receipt.table["status"], "quarantined")).as_py() or 0
    return items, quarantined


def begin_metrics(run: Run) -> MiningMetrics | None:
    """Numbers for Prometheus, as `run.metrics_port` and `run.metrics_file` say, and on Ray; None where nobody asks."""
    settings = run.config.run
    recorder = make_recorder(settings, run.layout.root, settings.executor == "ray")
    if not recorder:
        return None
    return MiningMetrics(
        recorder,
        run.layout.root,
        fingerprint=run.fingerprint,
        proposer=run.config.proposer,
        units=run.plan.num_units,
        done=len(done_units(run.layout)),
    )


class _LostShards:
    """Shards that are not as their receipts say: a unit counts as done by its receipt, so one whose shard was removed
    or cut since is not mined again by itself."""

    def __init__(self, layout: Layout) -> None:
        try:
            self._there = {basename(file.uri): file.size for file in list_files(layout.shards)}
        except FileNotFoundError:
            self._there = {}
        self._recorded = self._lost = 0
        self._example = ""

    def look(self, shards: Iterable[ShardInfo]) -> None:
        """Compare shards as receipts list them with those that are there."""
        for shard in shards:
            self._recorded += 1
            if self._there.get(shard.name) != shard.num_bytes:
                self._example = self._example or shard.name
                self._lost += 1

    def warn(self) -> None:
        """Say how many there are, if any."""
        if self._lost:
            log.warning(
                "%d of %s missing or of another length than its receipt says, such as %s: restore what is missing, or "
                "delete the receipt and run again; inspect --verify checks all",
                self._lost,
                counted(self._recorded, "shard is", "shards are"),
                clean(self._example),
            )


def _results(
    run: Run,
    start_executor: Callable[[], Executor],
    done: set[int],
    only_quarantined: bool,
    shared: SharedRun | None,
    helps: Callable[[int, int], None],
) -> Iterator[UnitResult]:
    """Do one unit after the other, or several at once; no executor is started for nothing."""
    if shared is None:
        tasks = _tasks(run, done, only_quarantined)
        if first := next(tasks, None):
            yield from start_executor().run(chain([first], tasks))
        return
    alone = run.config.run.executor == "inline"
    yield from shared_results(
        lambda tasks: start_executor().run(tasks), lambda may_wait: shared.tasks(may_wait, helps), shared.release, alone
    )


def _tasks(run: Run, done: set[int], only_quarantined: bool) -> Iterator[UnitTask]:
    if only_quarantined:
        yield from retry_tasks(run, done)
    for unit in range(run.first_new_unit, run.plan.num_units):
        if unit not in done:
            yield first_task(run, unit)


def _outcome(run: Run, totals: Totals, done_now: int) -> Outcome:
    return Outcome(
        items=totals.items,
        statuses=dict(totals.statuses),
        reasons=dict(totals.reasons),
        examples=[(row.source_id, row.error_class, row.reason) for row in totals.examples[:10]],
        done_now=done_now,
        units=totals.units,
        frames=totals.counts["frames"],
        proposals=totals.counts["proposals"],
        negatives=totals.counts["negatives"],
        num_bytes=totals.num_bytes,
        shards=totals.shards,
        fingerprint=run.fingerprint,
    )
