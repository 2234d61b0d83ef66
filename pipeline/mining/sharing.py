"""The units of a run that this process mines, where others may mine into the same output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.mining.prepare import Run
from trackmill.pipeline.mining.unit import UnitResult
from trackmill.pipeline.shards.receipt_stream import UnitRows, read_unit, stream_receipts
from trackmill.pipeline.shards.receipts import done_units, listed_receipts
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.secrets.signed_urls import signatures_in
from trackmill.pipeline.workers.parts import Part
from trackmill.pipeline.workers.share import Share
from trackmill.pipeline.workers.task import UnitTask
from trackmill.schemas.keys import receipt_name, unit_name

_RETRIED = pa.schema([("status", pa.string()), ("position", pa.int64()), ("attempts", pa.int64())])


class SharedRun:
    """A run whose units are claimed before they are done.

    Args:
        run: see `trackmill.pipeline.mining.prepare`.
        claims: joined already.
        only_quarantined: see `Run`.
        part, helps, waits: see `Share`.
    """

    def __init__(
        self,
        run: Run,
        claims: Claims,
        only_quarantined: bool = False,
        part: Part | None = None,
        helps: bool = True,
        waits: bool = False,
    ) -> None:
        self._run = run
        self._only_quarantined = only_quarantined
        self.claims = claims
        self.part = part
        retried = _quarantined(run, done_units(run.layout)) if only_quarantined else ()
        self._retries = {receipt.unit: _attempts(receipt) for receipt in retried}
        self._settled: set[int] = set()
        units = [*self._retries, *range(run.first_new_unit, run.plan.num_units)]
        self.share = Share(
            claims,
            units if self._retries else range(run.first_new_unit, run.plan.num_units),
            unit_name,
            self._done,
            self._still_to_do,
            part,
            helps,
            waits,
            alone=run.config.run.executor == "inline",
        )

    def tasks(
        self, may_wait: bool, helps: Callable[[int, int], None] = lambda items, frames: None
    ) -> Iterator[UnitTask]:
        """What to do next; see `Share.units`.

        Args:
            may_wait: see there.
            helps: called with the items and frames of a unit that is not of the own share.
        """
        for unit in self.share.units(may_wait):
            if unit in self._retries:
                yield _retry_task(self._run, read_unit(self._run.layout, unit, schema=_RETRIED))
                continue
            task = first_task(self._run, unit)
            if self.part is not None and unit not in self.share.own:
                helps(len(task.items), sum(item.frames for item in task.items))
            yield task

    def release(self, result: UnitResult) -> None:
        """A unit has its receipt."""
        self._settled.add(result.unit)
        self.share.release(result.unit)

    def left(self) -> list[int]:
        """Units that are not done yet, those out of this part's reach included."""
        if self._only_quarantined:
            return self.share.left()
        done = done_units(self._run.layout)
        return [unit for unit in range(self._run.plan.num_units) if unit not in done]

    def in_work(self, units: list[int]) -> list[int]:
        """Those of some units that somebody has in hand."""
        claimed = self.claims.pieces()
        return [unit for unit in units if unit_name(unit) in claimed and unit not in self.given_up]

    @property
    def given_up(self) -> frozenset[int]:
        """Units that nobody will do by itself: they killed several processes, or cannot be claimed."""
        return self.share.given_up

    def _done(self) -> set[int]:
        """Units without a receipt are told by a listing; that one was retried is known once it is claimed."""
        if self._run.first_new_unit == self._run.plan.num_units:
            return self._settled
        return self._settled | (done_units(self._run.layout) - self._retries.keys())

    def _still_to_do(self, unit: int) -> bool:
        if unit not in self._retries:
            return not exists(self._run.layout.receipt(receipt_name(unit)))
        # Somebody else may have retried it since.
        same = _attempts(read_unit(self._run.layout, unit, schema=_RETRIED)) == self._retries[unit]
        if not same:
            self._settled.add(unit)
        return same


def first_task(run: Run, unit: int) -> UnitTask:
    """A unit that was not mined yet."""
    items = [run.moved.get(item.source_id, item) for item in run.plan.unit(unit)]
    return UnitTask(unit=unit, items=items, positions=list(range(len(items))), signatures=signatures_in(items))


def retry_tasks(run: Run, done: Collection[int]) -> Iterator[UnitTask]:
    """The quarantined items of some units once more."""
    for receipt in _quarantined(run, done):
        yield _retry_task(run, receipt)


def _retry_task(run: Run, receipt: UnitRows) -> UnitTask:
    rows = receipt.table.filter(pc.equal(receipt.table["status"], "quarantined"))
    items = [run.retried.get(item.source_id, item) for item in run.plan.unit(receipt.unit)]
    positions = rows["position"].to_pylist()
    items = [items[p] for p in positions]
    return UnitTask(
        unit=receipt.unit,
        items=items,
        positions=positions,
        retry=_attempts(receipt),
        signatures=signatures_in(items),
    )


def _quarantined(run: Run, units: Collection[int]) -> Iterator[UnitRows]:
    """The receipts in which items are quarantined."""
    sizes = listed_receipts(run.layout)
    for receipt in stream_receipts(run.layout, {unit: sizes.get(unit, 0) for unit in units}, _RETRIED):
        if pc.any(pc.equal(receipt.table["status"], "quarantined")).as_py():
            yield receipt


def _attempts(receipt: UnitRows) -> int:
    attempts: int = pc.max(receipt.table["attempts"]).as_py()
    return attempts
