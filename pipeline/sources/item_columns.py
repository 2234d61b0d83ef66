"""Work items as columns: a row is a `WorkItem`, so that millions of them need no Python object each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from trackmill.pipeline.sources.key_columns import sample_keys
from trackmill.pipeline.storage.sorted_batches import SortedBatches, Sorter
from trackmill.schemas.media import WorkItem

_ARROW = {"str": pa.string(), "int": pa.int64()}
ITEM_FIELDS = [field.name for field in dataclasses.fields(WorkItem)]
ITEM_SCHEMA = pa.schema([(field.name, _ARROW[str(field.type)]) for field in dataclasses.fields(WorkItem)])
_DEFAULTS = {"offset": -1, "length": -1, "frames": 1, "first_frame": 0, "stride": 1}
BATCH_ROWS = 32_768
"""Rows that are handled at once: some 20 MB with all that is made of them."""


def items_batch(items: Sequence[WorkItem]) -> pa.RecordBatch:
    """Items as rows of `ITEM_SCHEMA`."""
    columns = [pa.array([getattr(item, f.name) for item in items], f.type) for f in ITEM_SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=ITEM_SCHEMA)


def item_batches(items: Iterable[WorkItem]) -> Iterator[pa.RecordBatch]:
    """The same for any number of items, `BATCH_ROWS` at a time."""
    waiting = iter(items)
    while some := list(islice(waiting, BATCH_ROWS)):
        yield items_batch(some)


def file_rows(
    source: str, uris: pa.Array, source_ids: pa.Array, names: list[str], details: pa.Array | None = None
) -> pa.RecordBatch:
    """Items that are whole files of one frame each, as `trackmill.pipeline.sources.base.file_item` makes them.

    Args:
        source: name of the source.
        uris: the files.
        source_ids: identity of each.
        names: what people call each.
        details: of each, as JSON; None: there are none.
    """
    values = {
        "source": source,
        "source_id": source_ids,
        "key": sample_keys(source, names, source_ids.to_pylist()),
        "uri": uris,
        "details": "{}" if details is None else details,
        **_DEFAULTS,
    }
    columns = [_column(values[field.name], field.type, len(uris)) for field in ITEM_SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=ITEM_SCHEMA)


def _column(value: Any, kind: pa.DataType, rows: int) -> pa.Array:
    return value if isinstance(value, pa.Array) else pa.repeat(pa.scalar(value, kind), rows)


class ItemSorter:
    """Takes items from sources, as objects or as columns, and puts them into the order of their `source_id`."""

    def __init__(self) -> None:
        self._sorter = Sorter(ITEM_SCHEMA, "source_id")

    @property
    def num_items(self) -> int:
        """So many were added."""
        return self._sorter.num_rows

    def add(self, items: Iterable[WorkItem]) -> None:
        """Add items."""
        for batch in item_batches(items):
            self._sorter.add(batch)

    def add_rows(self, rows: pa.RecordBatch) -> None:
        """Add rows of `ITEM_SCHEMA`."""
        self._sorter.add(rows)

    def finish(self) -> SortedBatches:
        """All items."""
        return self._sorter.finish()


def items_of(rows: pa.Table | pa.RecordBatch) -> list[WorkItem]:
    """The items of a table that has the columns of `ITEM_SCHEMA`, and may have more."""
    return [WorkItem(**row) for row in rows.select(ITEM_FIELDS).to_pylist()]
