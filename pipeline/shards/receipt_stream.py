"""Many receipts, one after the other as Arrow tables: so many rows are never held at once, and never as objects.

Receipts are fetched ahead by threads. Their lengths are known from the listing, so each costs an object store one
request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import (
    RECEIPT_MEMORY_FLOOR,
    ROW_OBJECT_BYTES,
    ROW_SCHEMA,
    damaged,
    listed_receipts,
    listed_shards,
    typed_table,
)
from trackmill.pipeline.storage.files import ShortRead, read_bytes
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData
from trackmill.pipeline.storage.urls import is_local
from trackmill.schemas.errors import StorageError
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.receipt import ShardInfo

T = TypeVar("T")

_THREADS = 16
_AHEAD = 32
_AHEAD_BYTES = 8 << 20
"""Receipts that are on their way or decoded: so many, or of so many bytes together as files. In memory a byte of a
receipt becomes five to thirty."""


@dataclass(frozen=True, slots=True)
class UnitRows:
    """A receipt as an Arrow table.

    Args:
        unit: its number.
        table: the columns that were asked for, its rows in the order of their positions.
        shards: of the unit.
        fingerprint: of the run.
    """

    unit: int
    table: pa.Table
    shards: list[ShardInfo]
    fingerprint: str


def read_unit(layout: Layout, unit: int, size: int = 0, schema: pa.Schema = ROW_SCHEMA) -> UnitRows:
    """One receipt as a table.

    Args:
        layout: of the data set.
        unit: whose.
        size: its length as it was listed, which saves a request; 0: unknown.
        schema: columns of `ROW_SCHEMA`.

    Raises:
        BadReceipt: it is damaged; names the file.
        FileNotFoundError: it is not there.
        OSError: storage failed for good.
    """
    url = layout.receipt(receipt_name(unit))
    if size and not is_local(url):
        try:
            return _parsed(url, unit, read_bytes(url, 0, size, max_bytes=MAX_TABLE_FILE_BYTES), schema)
        except (ValueError, StorageError) as error:
            # Replaced since it was listed, by one of another length? Then the whole of it is in order.
            if isinstance(error, StorageError) and not isinstance(error.__cause__, ShortRead):
                raise
    return _parsed(url, unit, read_bytes(url, max_bytes=MAX_TABLE_FILE_BYTES), schema)


def stream_receipts(
    layout: Layout, units: Mapping[int, int] | None = None, schema: pa.Schema = ROW_SCHEMA
) -> Iterator[UnitRows]:
    """Receipts in the order of their units, in bounded memory.

    Args:
        layout: of the data set.
        units: which, each with its length, see `trackmill.pipeline.shards.receipts.listed_receipts`; None: all that are
            there.
        schema: columns of `ROW_SCHEMA`.

    Raises:
        BadReceipt: one of them is damaged; names the file.
        FileNotFoundError: one of them vanished.
        OSError: storage failed for good.
    """
    sizes = listed_receipts(layout) if units is None else dict(sorted(units.items()))
    yield from in_order(
        lambda unit: read_unit(layout, unit, sizes[unit], schema), list(sizes), lambda unit: sizes[unit]
    )


def in_order(read: Callable[[int], T], numbers: Sequence[int], size_of: Callable[[int], int]) -> Iterator[T]:
    """What `read` returns for each number, in this order, while threads are some numbers ahead.

    Args:
        read: called in any order, from any thread.
        numbers: what for.
        size_of: bytes of the file that is read; `_AHEAD_BYTES` limits their sum.
    """
    waiting: deque[tuple[int, Future[T]]] = deque()
    held = 0
    left = iter(numbers)
    following = next(left, None)
    with ThreadPoolExecutor(_THREADS, "receipts") as pool:
        try:
            while waiting or following is not None:
                while following is not None and (
                    not waiting or (len(waiting) < _AHEAD and held + size_of(following) <= _AHEAD_BYTES)
                ):
                    waiting.append((size_of(following), pool.submit(read, following)))
                    held += waiting[-1][0]
                    following = next(left, None)
                size, first = waiting.popleft()
                result = first.result()
                held -= size
                yield result
        finally:
            for _, future in waiting:
                future.cancel()


def in_batches(tables: Iterable[pa.Table], rows: int = 1 << 16) -> Iterator[pa.Table]:
    """The same rows in fewer tables: what is done once for each table is done seldom.

    Args:
        tables: of one schema.
        rows: of a batch, about: at least so many, but for the last.
    """
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += len(table)
        if count >= rows:
            yield pa.concat_tables(held)
            held, count = [], 0
    if held:
        yield pa.concat_tables(held)


def _parsed(url: str, unit: int, content: bytes, schema: pa.Schema) -> UnitRows:
    try:
        data = ParquetData(content, RECEIPT_MEMORY_FLOOR)
        shards = listed_shards(data.metadata)
        position = ROW_SCHEMA.field("position")
        # Whoever asks for all columns may want objects.
        table = typed_table(
            data,
            schema if "position" in schema.names else schema.append(position),
            ROW_OBJECT_BYTES if schema == ROW_SCHEMA else 0,
        )
        return UnitRows(
            unit, by_position(table).select(schema.names), shards, data.metadata[b"trackmill.fingerprint"].decode()
        )
    except (KeyError, ValueError) as error:
        raise damaged(url, "receipt", error) from None


def by_position(table: pa.Table) -> pa.Table:
    """Rows in the order of their `position`; a retry appends what it saved."""
    positions = table["position"].to_numpy()
    if np.all(positions[1:] >= positions[:-1]):
        return table
    return table.take(pa.array(np.argsort(positions, kind="stable")))
