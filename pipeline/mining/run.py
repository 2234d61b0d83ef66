"""Mining from end to end: a prepared run to units, units to shards and receipts, receipts to manifest and card.

Every step can be interrupted anywhere and run again: what has a receipt is done, everything else is done again, and
both give the same bytes.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from trackmill.pipeline.console.disk_space import free_bytes, too_little_disk_space
from trackmill.pipeline.console.output import clean
from trackmill.pipeline.mining.forecast import make_forecast
from trackmill.pipeline.mining.prepare import Run
from trackmill.pipeline.mining.progress import MiningProgress
from trackmill.pipeline.mining.signatures import keep_signatures
from trackmill.pipeline.mining.unit import UnitResult
from trackmill.pipeline.shards.card import write_card
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import Receipt, done_units, read_receipts, write_manifest
from trackmill.pipeline.storage.files import basename, list_files
from trackmill.pipeline.storage.scratch import sweep_scratch
from trackmill.pipeline.storage.secrets.signed_urls import signatures_in
from trackmill.pipeline.workers.forecast import Forecast
from trackmill.pipeline.workers.task import UnitTask
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")

_QUARANTINED_TOLD = 20
"""Items that are named as they are quarantined; the receipts name them all."""


class Executor(Protocol):
    """Runs units: `InlineExecutor` or `RayPool`."""

    def run(self, tasks: Iterator[UnitTask]) -> Iterator[UnitResult]:
        """Yield each unit's result as it is done."""
        ...

    def measure(self, items: list[WorkItem]) -> list[tuple[int, float, int]]:
        """(frames, seconds, bytes) of each item."""
        ...


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


def forecast(run: Run, executor: Executor, workers: int, gpus: float, usd_per_gpu_hour: float | None) -> Forecast:
    """What `run` will take; see `trackmill.pipeline.mining.forecast`."""
    made = make_forecast(run.plan, executor.measure, workers, gpus, usd_per_gpu_hour)
    return dataclasses.replace(made, free=free_bytes(run.layout.root))


def execute(
    run: Run,
    start_executor: Callable[[], Executor],
    progress: MiningProgress,
    only_quarantined: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Outcome:
    """Do what is not done yet, then write manifest and card.

    Args:
        run: see `prepare` and `reopen`.
        start_executor: called only if there is something to do, so that a finished run starts no cluster.
        progress: see `begin_progress`.
        only_quarantined: retry quarantined items, and nothing else.
        check: called after each unit, and before manifest and card; raises where the work must not go on.

    Raises:
        Exception: what the executor raises; everything that was done stays done.
    """
    done = done_units(run.layout)
    tasks = _tasks(run, done, only_quarantined)
    first = next(tasks, None)
    results = start_executor().run(chain([first], tasks)) if first else iter(())
    done_now = record = written = 0
    told_of_room = False
    for result in results:
        done_now += 1
        written += result.num_bytes
        left = max(0, run.plan.num_units - len(done) - done_now)
        if (
            not only_quarantined
            and not told_of_room
            and (said := too_little_disk_space(run.layout.root, written * left // done_now, f"the rest, {left} units,"))
        ):
            log.warning("%s: free some before it is full", said)
            told_of_room = True
        progress.unit_done(result)
        for source_id, error_class, reason in result.quarantined[: max(0, _QUARANTINED_TOLD - record)]:
            log.warning("quarantined: %s: %s: %s", clean(source_id), error_class, clean(reason))
            record += 1
        check()
    progress.close()
    check()
    # Once more: a worker of a killed run may have outlived the sweep at the start.
    sweep_scratch(run.layout.shards)
    receipts = read_receipts(run.layout)
    _warn_of_lost_shards(run.layout, receipts)
    write_manifest(run.layout, receipts)
    keep_signatures(run.layout, run.plan, run.moved | run.retried)
    licenses = Counter(row.license for receipt in receipts for row in receipt.rows if row.status == "ok")
    write_card(run.layout, run.config.model_dump(mode="json") | {"fingerprint": run.fingerprint}, receipts, licenses)
    return _outcome(run, receipts, done_now)


def begin_progress(run: Run, only_quarantined: bool = False) -> MiningProgress:
    """A progress report that knows what earlier runs did."""
    settings = run.config.run
    units = done_units(run.layout)
    if only_quarantined:
        frames = [[item.frames for item in task.items] for task in _tasks(run, units, only_quarantined)]
        return MiningProgress(
            sum(map(len, frames)),
            sum(map(sum, frames)),
            interval_s=settings.progress_s,
            watchdog_s=settings.watchdog_s,
        )
    receipts = read_receipts(run.layout, units) if units else []
    rows = [row for receipt in receipts for row in receipt.rows]
    return MiningProgress(
        run.plan.num_items,
        run.plan.num_frames,
        done_items=len(rows),
        done_frames=run.plan.frames_in(units),
        quarantined=sum(row.status == "quarantined" for row in rows),
        interval_s=settings.progress_s,
        watchdog_s=settings.watchdog_s,
    )


def _warn_of_lost_shards(layout: Layout, receipts: list[Receipt]) -> None:
    """A unit counts as done by its receipt; one whose shard was removed or cut since is not mined again by itself."""
    try:
        there = {basename(file.uri): file.size for file in list_files(layout.shards)}
    except FileNotFoundError:
        there = {}
    recorded = [shard for receipt in receipts for shard in receipt.shards]
    lost = [shard.name for shard in recorded if there.get(shard.name) != shard.num_bytes]
    if lost:
        log.warning(
            "%d of %d shards are missing or have another length than their receipts say, such as %s: restore them, or "
            "delete their receipts and run again; inspect --verify checks all",
            len(lost),
            len(recorded),
            clean(lost[0]),
        )


def _tasks(run: Run, done: set[int], only_quarantined: bool) -> Iterator[UnitTask]:
    if only_quarantined:
        yield from _retry_tasks(run, done)
    for unit in range(run.first_new_unit, run.plan.num_units):
        if unit not in done:
            items = [run.moved.get(item.source_id, item) for item in run.plan.unit(unit)]
            yield UnitTask(unit=unit, items=items, positions=list(range(len(items))), signatures=signatures_in(items))


def _retry_tasks(run: Run, done: set[int]) -> Iterator[UnitTask]:
    for receipt in read_receipts(run.layout, done):
        rows = [row for row in receipt.rows if row.status == "quarantined"]
        if not rows:
            continue
        items = [run.retried.get(item.source_id, item) for item in run.plan.unit(receipt.unit)]
        positions = [row.position for row in rows]
        retry = max(row.attempts for row in receipt.rows)
        items = [items[p] for p in positions]
        yield UnitTask(
            unit=receipt.unit, items=items, positions=positions, retry=retry, signatures=signatures_in(items)
        )


def _outcome(run: Run, receipts: list[Receipt], done_now: int) -> Outcome:
    rows = [row for receipt in receipts for row in receipt.rows]
    bad = [row for row in rows if row.status == "quarantined"]
    shards = [shard for receipt in receipts for shard in receipt.shards]
    return Outcome(
        items=len(rows),
        statuses=dict(Counter(row.status for row in rows)),
        reasons=dict(Counter(row.error_class for row in bad)),
        examples=[(row.source_id, row.error_class, row.reason) for row in bad[:10]],
        done_now=done_now,
        units=len(receipts),
        frames=sum(row.frames for row in rows),
        proposals=sum(row.proposals for row in rows),
        negatives=sum(row.negatives for row in rows),
        num_bytes=sum(shard.num_bytes for shard in shards),
        shards=len(shards),
        fingerprint=run.fingerprint,
    )
