"""How far a mining run is: its plan's numbers, the names and times of its receipts, and some receipts' rows."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from trackmill.pipeline.console.quarantine import quarantine_limit
from trackmill.pipeline.console.words import counted
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import typed_table
from trackmill.pipeline.status.commands import mine_again
from trackmill.pipeline.status.holders import age_of, holders_of
from trackmill.pipeline.status.pace import pace_of
from trackmill.pipeline.status.quarantined import chosen, look_at
from trackmill.pipeline.status.state import Sign, Status
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.file_times import FileTime, list_times, store_time
from trackmill.pipeline.storage.files import open_for_seeking, read_bytes
from trackmill.pipeline.storage.parquet.reading import ParquetData, rows_and_largest
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.errors import InputError

_RECEIPT = re.compile(r"^part-(\d{8,})\.parquet$")
_SMALL_PLAN = 8 << 20
"""Plans up to so many bytes are read whole, so that the items of units that are done are counted and not estimated."""


def data_set_status(root: str, config: dict[str, Any], every_receipt: bool = False) -> Status:
    """How far a data set is.

    Args:
        root: its URL, spelt in full.
        config: what its `config.json` says.
        every_receipt: read all receipts for the reasons of quarantined items, not only a sample.

    Raises:
        InputError: its plan is damaged.
        OSError: storage failed.
    """
    layout = Layout(root)
    clock = store_time(root)
    receipts = sorted(_named(list_times(layout.receipts)), key=lambda file: (file.modified, file.name))
    done = {int(match[1]) for file in receipts if (match := _RECEIPT.match(file.name))}
    plan = _Plan(layout)
    names = [file.name for file in receipts]
    picked = names if every_receipt else chosen(names)
    quarantine = look_at([layout.receipt(name) for name in picked], len(names)) if names else None
    holders, signs = holders_of(root, list_times(root), clock.now)
    if receipts:
        newest = receipts[-1]
        signs.append(Sign(what=f"receipt {newest.name}", age_s=age_of(newest.modified, clock.now)))
    items_done, exact = plan.items_in(done)
    if not exact and quarantine is not None and quarantine.receipts == quarantine.of and not quarantine.damaged:
        items_done, exact = quarantine.items, True
    whole = plan.units > 0 and done >= set(range(plan.units))
    summed_up = _summed_up(layout, receipts)
    status = Status(
        kind="data set",
        url=redact(root),
        title=f"proposer {_text(config, 'proposer')}, fingerprint {str(config.get('fingerprint', '?'))[:16]}",
        state="going" if any(each.alive for each in holders) else "done" if whole and summed_up else "stopped",
        things="units",
        done=len(done & set(range(plan.units))) if plan.units else len(done),
        total=max(plan.units, len(done)) if not plan.units else plan.units,
        items_done=items_done,
        items=plan.items,
        items_exact=exact,
        pace=pace_of([file.modified for file in receipts]),
        quarantine=quarantine,
        holders=holders,
        signs=sorted(signs, key=lambda sign: sign.age_s),
        clock=clock.whose,
        notes=plan.notes,
    )
    _conclude(status, config, root, whole, summed_up)
    return status


class _Plan:
    """The plan's numbers. Of a large one only the footers are read."""

    def __init__(self, layout: Layout) -> None:
        files = [file for file in list_times(layout.plan) if file.name.endswith(".parquet")]
        self.notes: list[str] = []
        self.units = self.items = 0
        self._per_unit: np.ndarray[Any, np.dtype[np.int64]] | None = np.zeros(0, np.int64)
        small = sum(file.size for file in files) <= _SMALL_PLAN
        for file in files:
            url = join(layout.plan, file.name)
            try:
                rows, largest = self._counted(url) if small else _footer_of(url, file.size)
                if largest is None and rows:
                    rows, largest = self._counted(url)
                elif not small:
                    self._per_unit = None
            except ValueError as error:
                raise InputError(f"{redact(url)}: not a readable plan ({error}); restore it") from None
            self.items += rows
            self.units = max(self.units, (-1 if largest is None else largest) + 1)
        if not files:
            self.notes.append("nothing is planned here yet")

    def items_in(self, units: set[int]) -> tuple[int, bool]:
        """Items of some units, and whether they were counted."""
        if self._per_unit is not None:
            known = [unit for unit in units if unit < len(self._per_unit)]
            return int(self._per_unit[known].sum()) if known else 0, True
        if len(units) >= self.units:
            return self.items, True
        return round(self.items * len(units) / self.units), False

    def _counted(self, url: str) -> tuple[int, int | None]:
        data = ParquetData(read_bytes(url))
        numbers = typed_table(data, pa.schema([("unit", pa.int64())]))["unit"].to_numpy()
        if not len(numbers):
            return 0, None
        if numbers.min() < 0 or numbers.max() >= 1 << 31:
            raise ValueError(f"it numbers units from {numbers.min()} to {numbers.max()}")
        if self._per_unit is not None:
            counts = np.bincount(numbers, minlength=len(self._per_unit))
            counts[: len(self._per_unit)] += self._per_unit
            self._per_unit = counts
        return len(numbers), int(numbers.max())


def _footer_of(url: str, size: int) -> tuple[int, int | None]:
    with open_for_seeking(url) as handle:
        return rows_and_largest(handle, size or handle.seek(0, io.SEEK_END), "unit")


def _named(files: Sequence[FileTime]) -> list[FileTime]:
    return [file for file in files if _RECEIPT.match(file.name)]


def _summed_up(layout: Layout, receipts: Sequence[FileTime]) -> bool:
    """Whether the manifest is there and younger than the receipts, the last of which is at the end."""
    manifest = {file.name: file.modified for file in list_times(layout.manifest.rpartition("/")[0])}
    written = manifest.get("items.parquet")
    # Times that are not told are nan, and nothing is older than that.
    return written is not None and not (receipts and written < receipts[-1].modified)


def _conclude(status: Status, config: dict[str, Any], root: str, whole: bool, summed_up: bool) -> None:
    """Notes, and what to do next."""
    settings = config.get("config", {})
    found = status.quarantine
    limit = str(settings.get("run", {}).get("max_quarantined", "")) if isinstance(settings, dict) else ""
    if found is not None and status.state == "done" and found.quarantined:
        # A sample has the same share, more or less.
        items = status.items or found.items
        status.within_limit = found.share * items <= quarantine_limit(limit, items)
        if not status.within_limit:
            status.notes.append(f"more items are quarantined than run.max_quarantined = {limit} allows")
        elif found.quarantined == found.items:
            status.within_limit = False
            status.notes.append("nothing was mined: every item that was looked at is quarantined")
    if found is not None and found.damaged:
        status.notes.append(
            f"{counted(len(found.damaged), 'receipt is', 'receipts are')} damaged, such as {found.damaged[0]}"
        )
    if whole and not summed_up and status.state != "going":
        status.notes.append("all units are done, but the manifest is missing or older: the same command writes it")
    shown = redact(root)
    if status.state == "going":
        status.next = f"wait, or look again: trackmill status {shown} --watch 30"
    elif status.state == "stopped":
        status.next = mine_again(config, shown)
    elif found is not None and found.quarantined:
        status.next = f"mend the files, then: trackmill mine --output {shown} --only-quarantined"
    else:
        status.next = f"trackmill inspect {shown} --verify"


def _text(config: dict[str, Any], key: str) -> str:
    settings = config.get("config", {})
    return str(settings.get(key, "?")) if isinstance(settings, dict) else "?"
