"""Whether all units that were planned are there, and all items."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.shards.receipts import done_units, typed_table
from trackmill.pipeline.shards.row_checks import digests
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.parquet.on_disk import StoredTable
from trackmill.pipeline.storage.urls import basename

_MAX_PLAN_BYTES = 256 << 30
"""Only a row group of a plan is ever in memory."""

_UNIT = pa.schema([("unit", pa.int64())])
_PLANNED = pa.schema([("source_id", pa.string()), ("unit", pa.int64())])
_ID = pa.schema([("source_id", pa.string())])


def unfinished_units(layout: Layout) -> tuple[int, int]:
    """How many planned units have no receipt yet, and how many are planned; (0, 0) where there is no plan.

    A plan that cannot be read counts as none: `trackmill inspect --verify` says what is wrong with it.

    Raises:
        OSError: storage failed.
    """
    planned: set[int] = set()
    try:
        for url in _plans(layout):
            for table in _groups(url, _UNIT):
                planned.update(np.unique(table["unit"].to_numpy()).tolist())
    except (FileNotFoundError, ValueError):
        return 0, 0
    return len(planned - set(done_units(layout))), len(planned)


def unfinished(dataset: Dataset) -> list[str]:
    """Warnings: planned items that no receipt mentions yet. That is work left to do, not damage."""
    if dataset.layout is None:
        return []
    try:
        plans = _plans(dataset.layout)
    except FileNotFoundError:
        return []
    done = np.empty(0, np.int64)
    if plans:
        done = np.concatenate([done, *(digests(table["source_id"]) for table in dataset.rows.tables(_ID))])
        done.sort()
    items, units = 0, set()
    for plan in plans:
        try:
            for table in _groups(plan, _PLANNED):
                wanted = digests(table["source_id"])
                places = np.minimum(np.searchsorted(done, wanted), max(0, len(done) - 1))
                left = done[places] != wanted if len(done) else np.ones(len(wanted), bool)
                items += int(np.count_nonzero(left))
                units |= set(np.unique(table["unit"].to_numpy()[left]).tolist())
        except ValueError as error:
            return [f"{basename(plan)}: not a readable plan ({error})"]
    if not items:
        return []
    return [
        f"{items} planned items in {len(units)} units have no receipt yet; run the {dataset.made_by} command again to "
        "finish them"
    ]


def _plans(layout: Layout) -> list[str]:
    return [file.uri for file in list_files(layout.plan) if file.uri.endswith(".parquet")]


def _groups(url: str, schema: pa.Schema) -> Iterator[pa.Table]:
    table = StoredTable(url, _MAX_PLAN_BYTES)
    try:
        for number in range(len(table.group_rows)):
            yield typed_table(table.group(number), schema)
    finally:
        table.close()
