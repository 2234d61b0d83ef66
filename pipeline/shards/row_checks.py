"""Rows of receipts against each other: one row per item, one item per key, a place for each that was stored.

Millions of rows are compared by numbers made from their texts. Those few that may be wrong are then looked at as they
are, so that a number which two texts share by chance makes no fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trackmill.pipeline.shards.check import Fault
from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.shards.rows import objects
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.receipt import ReceiptRow

_STATUSES = ("ok", "quarantined", "skipped")
_NAMES = pa.schema([("source_id", pa.string()), ("key", pa.string())])
_UNIT = pa.schema([("unit", pa.int64())])


def check_rows(dataset: Dataset) -> Iterator[Fault]:
    """What is wrong with rows beside others; nothing of tars alone."""
    if dataset.recorded is None:
        return
    shards = {shard.name for shard in dataset.shards}
    for name, count in Counter(shard.name for shard in dataset.shards).items():
        if count > 1:
            yield Fault(name, "", f"{count} receipts claim this shard")
    first_by_id: dict[str, ReceiptRow] = {}
    first_by_key: dict[str, ReceiptRow] = {}
    for row in _suspects(dataset, shards):
        here = row.shard or receipt_name(row.unit)
        before = first_by_id.setdefault(row.source_id, row)
        if before is not row:
            where = before.shard or receipt_name(before.unit)
            yield Fault(
                here, f"{row.key}.json", f"{row.source_id!r} has a row twice: {row.status}; {before.status} in {where}"
            )
        before = first_by_key.setdefault(row.key, row)
        if before is not row:
            yield Fault(here, f"{row.key}.json", f"its key is not unique: {before.shard or 'a row'} has it as well")
        if row.status not in _STATUSES:
            yield Fault(here, f"{row.key}.json", f"status {row.status!r} is none of ok, quarantined, skipped")
        elif row.status == "ok" and row.shard not in shards:
            yield Fault(here, f"{row.key}.json", "its receipt does not list the shard it is said to be in")
        elif row.status != "ok" and row.shard:
            yield Fault(here, f"{row.key}.json", f"is {row.status} and yet has a place in a shard")


def rows_of_other_units(dataset: Dataset) -> dict[int, list[Fault]]:
    """By unit: rows of its receipt that say they are of another one."""
    found: dict[int, list[Fault]] = {}
    if dataset.recorded is None or not dataset.receipts:
        return found
    first = 0
    for receipt, table in zip(dataset.receipts, dataset.rows.tables(_UNIT), strict=True):
        wrong = np.flatnonzero(table["unit"].to_numpy() != receipt.unit)
        if len(wrong):
            name = receipt_name(receipt.unit)
            found[receipt.unit] = [
                Fault(name, f"{row.key}.json", f"its row is of unit {row.unit}")
                for row in dataset.rows.take((first + wrong).tolist())
            ]
        first += len(table)
    return found


def digests(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number for each text, the same for the same text, within this process."""
    return np.fromiter(map(hash, column.to_pylist()), np.int64, len(column))


def _suspects(dataset: Dataset, shards: set[str]) -> Iterator[ReceiptRow]:
    """Rows that may be wrong, in their order: all that share id or key with another one among them."""
    repeated = [_repeated(dataset, name) for name in _NAMES.names]
    listed, known = pa.array(sorted(shards), pa.string()), pa.array(_STATUSES)
    for table in dataset.rows.tables():
        ok = pc.equal(table["status"], "ok")
        placed = pc.if_else(ok, pc.is_in(table["shard"], value_set=listed), pc.equal(table["shard"], ""))
        wrong = pc.invert(pc.and_(placed, pc.is_in(table["status"], value_set=known))).to_numpy()
        for name, numbers in zip(_NAMES.names, repeated):
            if len(numbers):
                wrong = wrong | np.isin(digests(table[name]), numbers)
        if wrong.any():
            yield from objects(table.filter(pa.array(wrong)))


def _repeated(dataset: Dataset, name: str) -> NDArray[np.int64]:
    """Digests that several rows have."""
    numbers = np.empty(len(dataset.rows), np.int64)
    first = 0
    for table in dataset.rows.tables(pa.schema([_NAMES.field(name)])):
        numbers[first : first + len(table)] = digests(table[name])
        first += len(table)
    numbers.sort()
    return np.unique(numbers[1:][numbers[1:] == numbers[:-1]])
