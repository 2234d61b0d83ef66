"""The rows of a data set as a sequence of which only a part is in memory.

Rows lie in blocks: receipts, row groups of a manifest, or tars whose headers are read. Each was counted once, when the
data set was opened, and is read again when its rows are wanted. The rows of a small data set stay in memory.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.shards.receipt_stream import in_order
from trackmill.pipeline.shards.receipts import ROW_SCHEMA, BadReceipt
from trackmill.schemas.receipt import ReceiptRow

HELD_ROWS = 100_000
"""Data sets of so many rows are kept in memory: about 30 MB."""

_RECENT = 3
"""Blocks that stay in memory after one of their rows was asked for."""
_OBJECTS = 4096


class RowBlocks:
    """Blocks of rows, noted in their order with `note` and read again at any time, from any thread.

    Args:
        read: reads the columns of a schema of one block; with all of them in the order of the rows.
        sizes: bytes of the file or part that each block is read from.
        name_of: the file of a block, for messages.
    """

    def __init__(
        self, read: Callable[[int, pa.Schema], pa.Table], sizes: Sequence[int], name_of: Callable[[int], str]
    ) -> None:
        self._read, self._sizes, self._name_of = read, sizes, name_of
        self.counts: list[int] = []
        """Rows of each block."""
        self.stored: list[int] = []
        """Those of them that are `ok`."""
        self._with_shard: dict[str, list[int]] = {}
        self._held: list[pa.Table] | None = []
        self._num_held = 0
        self._recent: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, table: pa.Table) -> None:
        """Count the next block, given with all columns, or see `note_all`."""
        number = len(self.counts)
        stored = table.filter(pc.equal(table["status"], "ok"))
        self.counts.append(len(table))
        self.stored.append(len(stored))
        for shard in pc.unique(stored["shard"]).to_pylist():
            self._with_shard.setdefault(shard, []).append(number)
        self._num_held += len(table)
        if self._held is not None:
            self._held.append(table)
            if self._num_held > HELD_ROWS:
                self._held = None

    def note_all(self, schema: pa.Schema = ROW_SCHEMA) -> Iterator[pa.Table]:
        """Read all blocks for the first time, and count each as it is passed on.

        Args:
            schema: columns that are read, `status` and `shard` among them; where these are not all, nothing stays in
                memory.
        """
        if schema != ROW_SCHEMA:
            self._held = None
        for table in self._ahead(lambda number: self._read(number, schema), range(len(self._sizes))):
            self.note(table)
            yield table

    def tables(self, schema: pa.Schema = ROW_SCHEMA, first: int = 0) -> Generator[pa.Table, None, None]:
        """The blocks in their order from `first` on, with the columns of a schema.

        Raises:
            BadReceipt: one of them is damaged, or changed since the data set was opened.
            OSError: one of them is gone, or storage failed for good.
        """
        if self._held is not None:
            yield from (table.select(schema.names) for table in self._held[first:])
        else:
            yield from self._ahead(lambda number: self._again(number, schema), range(first, len(self.counts)))

    def block(self, number: int) -> pa.Table:
        """One block with all columns; raises what `tables` raises."""
        if self._held is not None:
            return self._held[number]
        with self._lock:
            if number in self._recent:
                self._recent.move_to_end(number)
                return self._recent[number]
        table = self._again(number, ROW_SCHEMA)
        with self._lock:
            self._recent[number] = table
            while len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        return table

    def of_shard(self, name: str) -> Iterator[ReceiptRow]:
        """The rows of the samples of a shard, in their order; raises what `tables` raises."""
        for number in self._with_shard.get(name, ()):
            table = self.block(number)
            yield from objects(table.filter(pc.and_(pc.equal(table["status"], "ok"), pc.equal(table["shard"], name))))

    def _again(self, number: int, schema: pa.Schema) -> pa.Table:
        table = self._read(number, schema)
        if len(table) != self.counts[number]:
            raise BadReceipt(
                f"{self._name_of(number)}: had {self.counts[number]} rows and has {len(table)} now: somebody changes "
                "this data set; run the command again"
            )
        return table

    def _ahead(self, read: Callable[[int], pa.Table], numbers: range) -> Iterator[pa.Table]:
        return in_order(read, numbers, lambda number: self._sizes[number])


class Rows(Sequence[ReceiptRow]):
    """All rows of some blocks, or those that have a sample, as a sequence of objects that are made when asked for.

    Args:
        blocks: all of them noted.
        stored: only rows that are `ok`.
    """

    def __init__(self, blocks: RowBlocks, stored: bool = False) -> None:
        self._blocks, self._stored = blocks, stored
        self._ends = list(accumulate(blocks.stored if stored else blocks.counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def num_blocks(self) -> int:
        """Blocks that the rows lie in; some may hold none of them."""
        return len(self._ends)

    def first_of(self, block: int) -> int:
        """Number of the first row of a block."""
        return self._ends[block - 1] if block else 0

    def block(self, number: int) -> pa.Table:
        """The rows of one block with all columns; those that were asked for last stay in memory."""
        return self._wanted(self._blocks.block(number))

    def __iter__(self) -> Iterator[ReceiptRow]:
        for table in self.tables():
            yield from objects(table)

    @overload
    def __getitem__(self, index: int) -> ReceiptRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[ReceiptRow]: ...

    def __getitem__(self, index: int | slice) -> ReceiptRow | list[ReceiptRow]:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.take([index % len(self)])[0]

    def take(self, numbers: Iterable[int]) -> list[ReceiptRow]:
        """Some rows; those of one block are best named one after the other."""
        found: list[ReceiptRow] = []
        for block, inside in groupby(numbers, lambda number: bisect_right(self._ends, number)):
            begin = self.first_of(block)
            places = pa.array([number - begin for number in inside], pa.int64())
            found += objects(self.block(block).take(places))
        return found

    def tables(self, schema: pa.Schema = ROW_SCHEMA, first: int = 0) -> Generator[pa.Table, None, None]:
        """The rows as Arrow tables with the columns of a schema, a block each, in their order from block `first` on.

        Raises:
            BadReceipt: a receipt is damaged, or changed since the data set was opened.
            OSError: one is gone, or storage failed for good.
        """
        if not self._stored:
            yield from self._blocks.tables(schema, first)
            return
        read = schema if "status" in schema.names else schema.append(ROW_SCHEMA.field("status"))
        for table in self._blocks.tables(read, first):
            yield self._wanted(table).select(schema.names)

    def _wanted(self, table: pa.Table) -> pa.Table:
        return table.filter(pc.equal(table["status"], "ok")) if self._stored else table


def objects(table: pa.Table) -> Iterator[ReceiptRow]:
    """The rows of a table that has all columns, a few thousand at a time as objects."""
    for batch in table.to_batches(_OBJECTS):
        for row in batch.to_pylist():
            yield ReceiptRow(**row)
