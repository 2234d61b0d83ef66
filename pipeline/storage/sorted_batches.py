"""Tables in the order of one text column, of any length: what does not fit into a few megabytes lies in a scratch file.

Rows come in any order. Each lot that comes is sorted, and lots that follow each other make a run; several runs are
merged at the end. What comes sorted, as listings of stores do, is a single run and is written once. Texts are compared
by their bytes in UTF-8, which is the order of Python's `str`.

The scratch file has no name and is gone with the process, however that ends. `TMPDIR` says where it lies.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

_MEMORY_BYTES = 16 << 20
"""What stays in memory."""

_LOT_ROWS = 131_072
_PIECE_ROWS = 32_768
_MERGED_ROWS = 4096
"""Rows of a piece of a run that has to be merged with others: one piece of each run is in memory then."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sorted batch: in memory, or `length` bytes of the scratch file from `offset` on."""

    rows: int
    batch: pa.RecordBatch | None = None
    offset: int = 0
    length: int = 0


class _Store:
    """Holds pieces."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._taken = 0

    def add(self, batch: pa.RecordBatch) -> _Piece:
        self._taken += batch.nbytes
        if self._taken <= _MEMORY_BYTES:
            return _Piece(len(batch), batch)
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its pieces are wanted
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_batch(batch)
        data = sink.getvalue()
        offset = self._file.seek(0, 2)
        self._file.write(data)
        return _Piece(len(batch), None, offset, data.size)

    def read(self, piece: _Piece, columns: Sequence[str]) -> pa.RecordBatch:
        if piece.batch is not None:
            return piece.batch.select(columns)
        assert self._file is not None
        self._file.seek(piece.offset)
        return pa.ipc.open_stream(self._file.read(piece.length)).read_next_batch().select(columns)


class SortedBatches:
    """Rows in order, as often as they are wanted.

    Attributes:
        num_rows: how many.
    """

    def __init__(self, store: _Store, pieces: Sequence[_Piece], schema: pa.Schema, key: str) -> None:
        self._store, self._pieces, self.schema, self.key = store, pieces, schema, key
        self.num_rows = sum(piece.rows for piece in pieces)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows, or all columns."""
        for piece in self._pieces:
            yield self._store.read(piece, columns or self.schema.names)


class Sorter:
    """Takes rows in any order; rows with equal keys stay in the order in which they came.

    Args:
        schema: of the rows.
        key: the column that they are sorted by.
        once: of rows with equal keys only the last is kept.
    """

    def __init__(self, schema: pa.Schema, key: str, once: bool = False) -> None:
        self._schema, self._key, self._once = schema, key, once
        self._store = _Store()
        self._runs: list[list[_Piece]] = []
        self._last: Any = None
        self._repeated = False
        self._waiting: list[pa.RecordBatch] = []
        self._num_waiting = 0
        self.num_rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows over."""
        self._waiting.append(batch)
        self._num_waiting += len(batch)
        self.num_rows += len(batch)
        if self._num_waiting >= _LOT_ROWS:
            self._settle()

    def finish(self) -> SortedBatches:
        """All rows in order; nothing can be added any more."""
        self._settle()
        if len(self._runs) < 2 and not (self._once and self._repeated):
            return SortedBatches(self._store, [p for run in self._runs for p in run], self._schema, self._key)
        store = _Store()
        pieces = [store.add(batch) for batch in self._merged()]
        self._runs = []
        return SortedBatches(store, pieces, self._schema, self._key)

    def _settle(self) -> None:
        """Put what waits into a run."""
        if not self._num_waiting:
            return
        lot = pa.Table.from_batches(self._waiting, self._schema).combine_chunks()
        self._waiting, self._num_waiting = [], 0
        keys = lot[self._key].chunk(0)
        in_order = pc.all(pc.less_equal(keys[:-1], keys[1:])).as_py() is not False
        if not in_order:
            lot = lot.take(pc.sort_indices(keys)).combine_chunks()
            keys = lot[self._key].chunk(0)
        first = keys[0].as_py()
        follows = self._last is not None and first >= self._last
        if self._once:
            self._repeated |= first == self._last or bool(pc.any(pc.equal(keys[:-1], keys[1:])).as_py())
        if not follows:
            self._runs.append([])
        rows = _PIECE_ROWS if in_order and len(self._runs) == 1 else _MERGED_ROWS
        self._runs[-1] += [self._store.add(batch) for batch in lot.to_batches(rows)]
        self._last = keys[-1].as_py()

    def _merged(self) -> Iterator[pa.RecordBatch]:
        cursors = [_Cursor(self._store, run, self._schema.names, self._key) for run in self._runs]
        waiting: list[pa.Table] = []
        while cursors:
            bound = min(cursor.last for cursor in cursors)
            lot = pa.concat_tables(piece for cursor in cursors for piece in cursor.up_to(bound)).combine_chunks()
            cursors = [cursor for cursor in cursors if cursor.left is not None]
            keys = lot[self._key].chunk(0)
            order = pc.sort_indices(keys)
            if self._once:
                keys = keys.take(order)
                last = pa.concat_arrays([pc.not_equal(keys[:-1], keys[1:]), pa.array([True])])
                order = order.filter(last)
            waiting.append(lot.take(order))
            if sum(map(len, waiting)) >= _PIECE_ROWS:
                yield from pa.concat_tables(waiting).combine_chunks().to_batches()
                waiting = []
        if waiting:
            yield from pa.concat_tables(waiting).combine_chunks().to_batches()


class _Cursor:
    """Where the merge stands in one run."""

    def __init__(self, store: _Store, run: Sequence[_Piece], columns: Sequence[str], key: str) -> None:
        self._batches = (store.read(piece, columns) for piece in run)
        self._key = key
        self.left: pa.RecordBatch | None = None
        self.last = ""
        self._next()

    def up_to(self, bound: str) -> Iterator[pa.Table]:
        """Takes out the rows whose key is not beyond `bound`."""
        while self.left is not None:
            keys = self.left[self._key]
            count = len(keys) if self.last <= bound else pc.sum(pc.less_equal(keys, bound)).as_py() or 0
            if count:
                yield pa.Table.from_batches([self.left.slice(0, count)])
            if count < len(keys):
                self.left = self.left.slice(count)
                return
            self._next()

    def _next(self) -> None:
        self.left = next(self._batches, None)
        self.last = self.left[self._key][-1].as_py() if self.left is not None else ""


def beside(
    batches: Iterable[pa.RecordBatch], key: str, others: Iterable[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, list[pa.RecordBatch]]]:
    """Each batch with those of `others` that have all rows whose key may occur in it; both sorted by `key`."""
    waiting = iter(others)
    near: list[pa.RecordBatch] = []
    for batch in batches:
        last = batch[key][-1].as_py() if len(batch) else ""
        while not near or near[-1][key][-1].as_py() < last:
            more = next(waiting, None)
            if more is None:
                break
            if len(more):
                near.append(more)
        yield batch, near
        near = [each for each in near if each[key][-1].as_py() >= last]


def which_are_in(batches: Iterable[pa.RecordBatch], key: str, others: Iterable[pa.RecordBatch]) -> Iterator[pa.Array]:
    """For each batch, which of its rows have a key that occurs in `others`; both sorted by `key`."""
    for batch, near in beside(batches, key, others):
        texts = [each[key] for each in near] or [pa.array([], batch.schema.field(key).type)]
        yield pc.is_in(batch[key], pa.concat_arrays(texts))
