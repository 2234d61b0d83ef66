"""Work items as columns: a row is a `WorkItem`, so that millions of them need no Python object each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from trackmill.schemas.media import WorkItem

_ARROW = {"str": pa.string(), "int": pa.int64()}
ITEM_FIELDS = [field.name for field in dataclasses.fields(WorkItem)]
ITEM_SCHEMA = pa.schema([(field.name, _ARROW[str(field.type)]) for field in dataclasses.fields(WorkItem)])
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


def items_of(rows: pa.Table | pa.RecordBatch) -> list[WorkItem]:
    """The items of a table that has the columns of `ITEM_SCHEMA`, and may have more."""
    return [WorkItem(**row) for row in rows.select(ITEM_FIELDS).to_pylist()]
