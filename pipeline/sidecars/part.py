"""One part of a sidecar: the table about the samples of one unit, as Parquet that checks itself.

A part is there under its name only when it is complete. Its metadata says which shards it describes, as their receipt
knows them, and what made it, so that a part of other shards or of other settings is never taken for the right one.
"""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.sidecars.columns import Column, arrow_schema
from trackmill.pipeline.storage.files import open_for_seeking, read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.parquet.checksum import with_checksum
from trackmill.pipeline.storage.parquet.reading import ParquetData, parquet_metadata
from trackmill.schemas.errors import JobError
from trackmill.schemas.keys import sidecar_part_name
from trackmill.schemas.receipt import ShardInfo

MAX_PART_BYTES = 512 << 20
MAX_TABLE_BYTES = 2 << 30
MAX_ROWS = 20_000_000
"""Limits of one part, in the file and in memory: what is larger is refused before it is read."""

PART_MEMORY_FLOOR = 256 << 20
"""What a part may take in memory even if its file is small, see `trackmill.pipeline.storage.parquet`."""

_ROW_GROUP = 1 << 16
_METADATA = b"trackmill.sidecar"


class BadPart(BadShard):
    """A part that is damaged or was not written by Trackmill; the text names it and says how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A sample that the producer could not use, and why."""

    key: str
    error_class: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartAbout:
    """What a part says about itself.

    Args:
        name, fingerprint: of its sidecar.
        dataset: fingerprint of the data set.
        unit, retry: see `trackmill.schemas.keys.sidecar_part_name`.
        shards: those that it describes, in order.
        samples: number of samples in them.
        quarantined: samples without rows because the producer failed on them.
        counts: what the producer counted over the other samples, see `CountedRows`; sidecars made before there were
            counts, and of producers that count nothing, have none.
    """

    name: str
    fingerprint: str
    dataset: str
    unit: int
    retry: int
    shards: tuple[ShardInfo, ...]
    samples: int
    quarantined: tuple[Quarantined, ...] = field(default=())
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Of the part."""
        return sidecar_part_name(self.unit, self.retry)


class PartRows:
    """Collects the rows of a part, sample by sample in the order of the shards.

    Args:
        columns: own columns of the sidecar.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._keys: list[str] = []
        self._counts: list[int] = []
        self._values: dict[str, list[Any]] = {name: [] for name in ("frame", *(column.name for column in columns))}
        self.quarantined: list[Quarantined] = []
        self.counts: Counter[str] = Counter()
        self.samples = 0

    @property
    def rows(self) -> int:
        """Number of rows so far."""
        return sum(self._counts)

    def add(self, key: str, rows: Mapping[str, Any] | Quarantined) -> None:
        """Add a sample: its rows as `trackmill.pipeline.sidecars.producer.check_rows` returns them, or why not."""
        self.samples += 1
        if isinstance(rows, Quarantined):
            self.quarantined.append(rows)
            return
        self._keys.append(key)
        self._counts.append(len(rows["frame"]))
        for name, count in getattr(rows, "counts", {}).items():
            self.counts[name] += count
        for name, values in self._values.items():
            values.append(rows[name])

    def table(self) -> pa.Table:
        """All rows as one Arrow table."""
        schema = arrow_schema(self._columns)
        keys = np.repeat(np.array(self._keys, dtype=object), self._counts)
        arrays = [pa.array(keys, pa.string())]
        arrays += [self._array(schema.field(name).type, values) for name, values in self._values.items()]
        return pa.table(arrays, schema=schema)

    def packed_bytes(self) -> int:
        """Bytes that the rows take in a part, without what every part has."""
        table = self.table()
        return len(_parquet(table)) - len(_parquet(table.slice(0, 0)))

    def _array(self, dtype: pa.DataType, values: list[Any]) -> pa.Array:
        if dtype == pa.string():
            return pa.array([text for part in values for text in part], pa.string())
        if pa.types.is_fixed_size_list(dtype):
            boxes = np.concatenate([np.zeros((0, 4), np.float32), *values])
            return pa.FixedSizeListArray.from_arrays(pa.array(boxes.reshape(-1)), type=dtype)
        return pa.array(np.concatenate([np.zeros(0, dtype.to_pandas_dtype()), *values]), dtype)


def part_bytes(about: PartAbout, table: pa.Table) -> bytes:
    """A part as Parquet; the same rows give the same bytes.

    Raises:
        JobError: it is larger than a part may be; names it.
    """
    metadata = dict(table.schema.metadata or {}) | {_METADATA: _metadata(about)}
    data = with_checksum(_parquet(table.replace_schema_metadata(metadata)))
    if table.num_rows > MAX_ROWS or table.nbytes > MAX_TABLE_BYTES or len(data) > MAX_PART_BYTES:
        raise JobError(
            f"sidecar {about.name}, unit {about.unit}: {table.num_rows} rows in {len(data)} bytes are more than a part "
            f"may have ({MAX_ROWS} rows, {MAX_PART_BYTES} bytes); keep fewer rows, or mine smaller units"
        )
    return data


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=_ROW_GROUP, write_page_checksum=True)
    return buffer.getvalue()


def read_part(url: str, where: str, columns: Sequence[Column]) -> SidecarPart:
    """Read a part of a sidecar.

    Args:
        url: of the part.
        where: what to call it in messages, such as `sidecars/detections/part-00000012.parquet`.
        columns: own columns of its sidecar.

    Raises:
        BadPart: damaged, too large, or with other columns.
        OSError: could not be read (`FileNotFoundError`: there is none).
    """
    try:
        return parse_part(read_bytes(url, max_bytes=MAX_PART_BYTES), where, columns)
    except FileTooLarge as error:
        raise BadPart(f"{where}: {error}") from None


def parse_part(data: bytes, where: str, columns: Sequence[Column]) -> SidecarPart:
    """A part from its bytes: size and schema are looked at before any row is, and every page has its checksum tested.

    Raises:
        BadPart: see `read_part`.
    """
    try:
        file = ParquetData(data, PART_MEMORY_FLOOR, ceiling=2 * MAX_TABLE_BYTES)  # the pages, and the table
        if file.num_rows > MAX_ROWS:
            raise ValueError(f"declares {file.num_rows} rows, more than the {MAX_ROWS} that a part may have")
        schema = arrow_schema(columns)
        if not file.schema.equals(schema, check_metadata=False):
            raise ValueError(f"has the columns {_named(file.schema)}; its sidecar.json declares {_named(schema)}")
        about = _about(file.metadata[_METADATA])
        return SidecarPart(about, file.read(schema.names).cast(schema).combine_chunks(), where)
    except BadPart:
        raise
    except (pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _damaged(where, error) from None


def read_part_about(url: str, where: str) -> PartAbout:
    """What a part says about itself, from its end alone.

    Raises:
        BadPart: the end is damaged.
        OSError: could not be read.
    """
    try:
        with open_for_seeking(url) as handle:
            return _about(parquet_metadata(handle, handle.seek(0, io.SEEK_END))[_METADATA])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(where, error) from None


def _damaged(where: str, error: Exception) -> BadPart:
    text = f"it says nothing of {error.args[0]!r}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
    return BadPart(f"{where}: damaged ({text}); delete it and make it again")


def _metadata(about: PartAbout) -> bytes:
    values = dataclasses.asdict(about)
    if not about.counts:
        del values["counts"]  # as before there were counts
    return orjson.dumps(values)


def _about(data: bytes) -> PartAbout:
    values = orjson.loads(data)
    values["shards"] = tuple(ShardInfo(**entry) for entry in values["shards"])
    values["quarantined"] = tuple(Quarantined(**entry) for entry in values["quarantined"])
    counts = values.setdefault("counts", {})
    if not all(isinstance(count, int) and count >= 0 for count in counts.values()):
        raise ValueError("its counts are no whole numbers")
    return PartAbout(**values)


def _named(schema: pa.Schema) -> str:
    return ", ".join(f"{name} {str(kind).replace(' not null', '')}" for name, kind in zip(schema.names, schema.types))


class SidecarPart:
    """A part in memory, by sample and frame.

    Args:
        about: its metadata.
        table: key, frame and the own columns.
        where: what to call it in messages.

    Raises:
        BadPart: the rows of a sample do not lie side by side, or its frames are out of order.
    """

    def __init__(self, about: PartAbout, table: pa.Table, where: str) -> None:
        self.about, self.table, self.where = about, table, where
        self._columns = {name: table[name].combine_chunks() for name in table.column_names}
        self._frames: NDArray[np.int32] = self._columns["frame"].to_numpy()
        codes = self._columns["key"].dictionary_encode()
        keys = codes.dictionary.to_pylist()
        order = codes.indices.to_numpy(zero_copy_only=False)
        begins = np.flatnonzero(np.diff(order, prepend=-1))
        if len(begins) != len(keys):
            raise BadPart(f"{where}: rows of one sample do not lie side by side; delete it and make it again")
        if (np.diff(self._frames)[np.diff(order) == 0] < 0).any():
            raise BadPart(f"{where}: frames of a sample are out of order; delete it and make it again")
        ends = np.append(begins[1:], len(order))
        self._places = {key: (int(begin), int(end)) for key, begin, end in zip(keys, begins, ends)}
        self._quarantined = {entry.key: entry for entry in about.quarantined}

    @property
    def keys(self) -> list[str]:
        """Samples that have rows, in order."""
        return list(self._places)

    def quarantined(self, key: str) -> Quarantined | None:
        """Why a sample has no rows, if the producer failed on it."""
        return self._quarantined.get(key)

    def of_sample(self, key: str) -> dict[str, Any]:
        """`frame` and the own columns of a sample; empty arrays where it has no rows. See `of_frame`."""
        begin, end = self._places.get(key, (0, 0))
        return {name: self._values(name, begin, end) for name in self.table.column_names[1:]}

    def of_frame(self, key: str, frame: int) -> dict[str, NDArray[Any]]:
        """The own columns of one frame, (N,) each and (N, 4) for boxes; text as `object`. Not to be written into.

        Raises:
            BadPart: the sample is quarantined in this sidecar.
        """
        if key in self._quarantined:
            entry = self._quarantined[key]
            raise BadPart(f"{self.where}: {key} is quarantined: {entry.error_class}: {entry.reason}")
        begin, end = self._places.get(key, (0, 0))
        first, last = begin + np.searchsorted(self._frames[begin:end], [frame, frame + 1])
        return {name: self._values(name, int(first), int(last)) for name in self.table.column_names[2:]}

    def _values(self, name: str, begin: int, end: int) -> NDArray[Any]:
        values = self._columns[name].slice(begin, end - begin)
        if pa.types.is_fixed_size_list(values.type):
            boxes: NDArray[np.float32] = values.flatten().to_numpy().reshape(-1, 4)
            return boxes
        array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return array
