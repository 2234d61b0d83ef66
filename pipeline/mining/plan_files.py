"""Files of the plan: written as units are cut, read a row group at a time, so that no plan has to fit into memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from weakref import finalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trackmill.pipeline.sources.item_columns import BATCH_ROWS, ITEM_SCHEMA
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.parquet.checksum import add_checksum
from trackmill.pipeline.storage.parquet.on_disk import StoredTable
from trackmill.pipeline.storage.scratch import scratch_folder, scratch_path
from trackmill.schemas.errors import InputError

SCHEMA = pa.schema([("unit", pa.int64()), ("position", pa.int64()), *ITEM_SCHEMA])
LISTING = b"trackmill.listing"

MAX_PLAN_BYTES = 256 << 30
"""Of one file of a plan. That of eleven million pictures has some 200 MB."""

_SUMMED = ["unit", "frames", "source"]
_LONG_TEXTS = ("source_id", "key", "uri")
_IN_MEMORY = 2
_MOST_GROUPS = 4096
"""More row groups would make a footer that takes longer to read than the rows."""


class PlanError(InputError):
    """The stored plan cannot be continued as asked; the text says why and what to do."""


class PlanPart:
    """One file of the plan.

    Args:
        url: where it is.

    Raises:
        PlanError: it is damaged.
        OSError: could not be read.

    Attributes:
        listing: see `Plan`.
        num_rows: items.
        units: (U,) numbers of the units in it, ascending.
        starts: (U + 1,) the row that each of them begins at, and the number of rows.
        frames: (U,) of each unit.
        items_of, frames_of: of each source.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._decoded: OrderedDict[int, pa.Table] = OrderedDict()
        try:
            self._rows = StoredTable(url, MAX_PLAN_BYTES)
        except ValueError as error:
            raise self._damaged(error) from None
        self.listing = self._rows.metadata.get(LISTING, b"").decode("utf-8", "replace")
        self._group_starts = np.cumsum([0, *self._rows.group_rows])
        self.num_rows = int(self._group_starts[-1])
        self.items_of: dict[str, int] = {}
        self.frames_of: dict[str, int] = {}
        self._sum_up()

    @property
    def name(self) -> str:
        """The file, fit to be shown."""
        return redact(self._url)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of all rows, a row group at a time."""
        for number in range(len(self._group_starts) - 1):
            yield self._group(number, columns)

    def rows(self, start: int, stop: int) -> pa.Table:
        """All columns of some rows."""
        first, last = np.searchsorted(self._group_starts, [start, stop - 1], "right") - 1
        pieces = []
        for number in range(int(first), int(last) + 1):
            begin = int(self._group_starts[number])
            piece = self._kept(number)
            pieces.append(piece.slice(max(0, start - begin), min(stop - begin, len(piece)) - max(0, start - begin)))
        return pa.concat_tables(pieces)

    def _kept(self, number: int) -> pa.Table:
        """A whole row group; units follow each other, so the last few are kept."""
        if number not in self._decoded:
            while len(self._decoded) >= _IN_MEMORY:
                self._decoded.popitem(last=False)
            self._decoded[number] = self._group(number, SCHEMA.names)
        self._decoded.move_to_end(number)
        return self._decoded[number]

    def _group(self, number: int, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        try:
            table = self._rows.group(number).read(columns).cast(schema)
        except (ValueError, pa.ArrowException) as error:
            raise self._damaged(error) from None
        for name in columns:
            if table[name].null_count:
                raise self._damaged(ValueError(f"column {name!r} has empty cells"))
        return table

    def _sum_up(self) -> None:
        numbers, starts, frames = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        last, row = -1, 0
        if self.num_rows:
            self._group(0, SCHEMA.names)  # a column that is missing is noticed now
        for table in self.batches(_SUMMED):
            if not len(table):
                continue
            unit, count = table["unit"].to_numpy(), table["frames"].to_numpy()
            if unit[0] < max(last, 0) or (unit[1:] < unit[:-1]).any():
                raise self._damaged(ValueError("its units are in no order"))
            begins = np.flatnonzero(np.concatenate(([True], unit[1:] != unit[:-1])))
            sums = np.add.reduceat(count, begins)
            if unit[0] == last:  # goes on from the row group before
                frames[-1][-1] += sums[0]
                begins, sums = begins[1:], sums[1:]
            if len(begins):
                numbers.append(unit[begins])
                starts.append(begins + row)
                frames.append(sums)
            last, row = int(unit[-1]), row + len(table)
            self._count_sources(table)
        self.units = np.concatenate(numbers)
        self.starts = np.append(np.concatenate(starts), row)
        self.frames = np.concatenate(frames)

    def _count_sources(self, table: pa.Table) -> None:
        sums = table.group_by("source").aggregate([("frames", "sum"), ("frames", "count")])
        for row in sums.to_pylist():
            self.items_of[row["source"]] = self.items_of.get(row["source"], 0) + row["frames_count"]
            self.frames_of[row["source"]] = self.frames_of.get(row["source"], 0) + row["frames_sum"]

    def _damaged(self, error: Exception) -> PlanError:
        said = " ".join(str(error).split())[:300]
        return PlanError(f"{self.name}: not a readable plan ({said}); restore it or use another --output")


class MadePart(PlanPart):
    """A part that is not stored yet: a scratch file, which goes with this object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        finalize(self, path.unlink, missing_ok=True)
        super().__init__(str(path))


Cut = tuple[NDArray[np.int64], NDArray[np.int64], pa.RecordBatch | pa.Table]
"""Unit and position of some items, and their rows with the columns of `ITEM_SCHEMA`."""


def write_part(batches: Iterable[Cut], listing: str, num_rows: int) -> MadePart:
    """Write items into a scratch file as they come.

    Args:
        batches: all items.
        listing: see `Plan`.
        num_rows: in all, about.
    """
    path = scratch_path(str(scratch_folder() / "plan.parquet"))
    try:
        schema = SCHEMA.with_metadata({LISTING: listing.encode()})
        with pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=[name for name in SCHEMA.names if name not in _LONG_TEXTS],
            write_statistics=["unit"],
        ) as writer:
            waiting: list[pa.Table] = []
            wanted = max(BATCH_ROWS, num_rows // _MOST_GROUPS)
            for unit, position, rows in batches:
                numbers = [pa.array(unit, pa.int64()), pa.array(position, pa.int64())]
                waiting.append(pa.table([*numbers, *(rows[name] for name in ITEM_SCHEMA.names)], schema=schema))
                if sum(map(len, waiting)) >= wanted:
                    writer.write_table(pa.concat_tables(waiting), row_group_size=1 << 30)
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting), row_group_size=1 << 30)
        add_checksum(path)
        return MadePart(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
