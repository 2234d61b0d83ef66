"""Changes of Parquet files through pyarrow: other types, columns, rows and metadata, written anew and valid."""

from __future__ import annotations

import io
import json
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.mutators.documents import HUGE, JSON, TEXTS, any_value
from tests.fuzz.target import Mutator

_TYPES = (
    *(pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.binary()),
    *(pa.bool_(), pa.date32(), pa.timestamp("ns", "UTC"), pa.decimal128(38, 3), pa.null(), pa.list_(pa.int64())),
    *(pa.struct([("a", pa.int64())]), pa.dictionary(pa.int32(), pa.string()), pa.duration("s"), pa.time64("us")),
)


def column_type(rng: Random, data: bytes) -> bytes:
    """A column has another type, its values converted where that goes, else made up."""
    table = _read(data)
    place = rng.randrange(table.num_columns)
    kind = rng.choice(_TYPES)
    try:
        column = table.column(place).cast(kind)
    except (pa.ArrowException, NotImplementedError):
        column = pa.nulls(len(table), kind)
    return _write(rng, table.set_column(place, table.column_names[place], column))


def column_set(rng: Random, data: bytes) -> bytes:
    """A column is missing, doubled, renamed, nested, or all are in another order."""
    table = _read(data)
    place = rng.randrange(table.num_columns)
    name, column = table.column_names[place], table.column(place)
    kind = rng.randrange(5)
    if kind == 0:
        table = table.remove_column(place)
    elif kind == 1:
        table = table.append_column(name, column)
    elif kind == 2:
        other = rng.choice(("", name.upper(), f"{name}.", rng.choice(TEXTS).replace("\ud800", "").replace("\0", "")))
        table = table.rename_columns([*table.column_names[:place], other, *table.column_names[place + 1 :]])
    elif kind == 3:
        nested = pa.array([[value] for value in column.to_pylist()], pa.list_(column.type))
        table = table.set_column(place, name, nested)
    else:
        table = table.select(list(reversed(table.column_names)))
    return _write(rng, table)


def values(rng: Random, data: bytes) -> bytes:
    """Some cells hold something else: null, an extreme number, a bad text."""
    table = _read(data)
    place = rng.randrange(table.num_columns)
    cells: list[Any] = table.column(place).to_pylist()
    kind = table.schema.field(place).type
    for _ in range(rng.choice((1, 1, 3, len(cells))) if cells else 0):
        row = rng.randrange(len(cells))
        cells[row] = _other(rng, kind, cells[row])
    try:
        column = pa.array(cells, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError, UnicodeError):
        cells = [None] * len(cells)
        column = pa.array(cells, kind)
    return _write(rng, table.set_column(place, pa.field(table.column_names[place], kind), column))


def rows(rng: Random, data: bytes) -> bytes:
    """Rows are missing, doubled, in another order, or none is left."""
    table = _read(data)
    order = list(range(len(table)))
    kind = rng.randrange(4)
    if kind == 0:
        order = []
    elif kind == 1:
        order = order * 2
    elif kind == 2:
        rng.shuffle(order)
    elif order:
        order.pop(rng.randrange(len(order)))
    return _write(rng, table.take(pa.array(order, pa.int64())))


def bomb(rng: Random, data: bytes) -> bytes:
    """Millions of rows that are all alike: kilobytes in the file, a gigabyte or more once read."""
    table = _read(data).slice(0, 1)
    if not len(table):
        return data
    repeated = table.take(pa.array([0] * 20_000, pa.int64())).combine_chunks()
    out = io.BytesIO()
    with pq.ParquetWriter(out, table.schema, compression="zstd") as writer:
        for _ in range(rng.choice((5, 100))):
            writer.write_table(repeated)
    return out.getvalue()


def long_text(rng: Random, data: bytes) -> bytes:
    """One text of a hundred megabytes, packed to kilobytes."""
    table = _read(data)
    texts = [i for i, field in enumerate(table.schema) if field.type == pa.string()]
    if not texts or not len(table):
        return data
    place = rng.choice(texts)
    cells = table.column(place).to_pylist()
    cells[0] = "x" * 100_000_000
    return _write(rng, table.set_column(place, table.schema.field(place), pa.array(cells, pa.string())), "zstd")


def metadata(rng: Random, data: bytes) -> bytes:
    """The file's own metadata is missing, or a value of it is another."""
    table = _read(data)
    known = dict(table.schema.metadata or {})
    if not known:
        return _write(rng, table.replace_schema_metadata({b"trackmill.shards": b"[]"}))
    key = rng.choice(sorted(known))
    kind = rng.randrange(4)
    if kind == 0:
        del known[key]
    elif kind == 1:
        known[key] = rng.choice((b"", b"null", b"[", b"{}", b"[]", b"-1", b"x" * 100_000, b"\xff", b"[" * 200_000))
    elif kind == 2:
        known[key] = json.dumps(any_value(rng)).encode("utf-8", "replace")
    else:
        known[key] = rng.choice(JSON)(rng, known[key])
    return _write(rng, table.replace_schema_metadata(known))


PARQUET: tuple[Mutator, ...] = (
    *(column_type,) * 3,
    *(column_set,) * 3,
    *(values,) * 5,
    *(metadata,) * 3,
    *(rows, rows, bomb, long_text),
)


def _read(data: bytes) -> pa.Table:
    if pq.read_metadata(io.BytesIO(data)).num_rows > 10_000 or len(data) > 1 << 20:
        raise ValueError("an earlier change made a bomb of it")
    return pq.read_table(io.BytesIO(data))


def _write(rng: Random, table: pa.Table, compression: str = "") -> bytes:
    out = io.BytesIO()
    compression = compression or rng.choice(("none", "snappy", "zstd"))
    pq.write_table(table, out, compression=compression, write_page_checksum=True)
    return out.getvalue()


def _other(rng: Random, kind: Any, value: Any) -> Any:
    if rng.random() < 0.25:
        return None
    if pa.types.is_integer(kind):
        return (
            rng.choice((0, -1, 2**31, 2**63 - 1, -(2**63), 2**62))
            if kind == pa.int64()
            else rng.choice((0, 1, 2**31 - 1))
        )
    if pa.types.is_floating(kind):
        return rng.choice([each for each in HUGE if isinstance(each, float)])
    if pa.types.is_string(kind):
        return rng.choice([*(text for text in TEXTS if "\ud800" not in text), f"{value}x", f"../{value}"])
    if pa.types.is_binary(kind):
        return rng.randbytes(rng.randrange(40))
    if pa.types.is_boolean(kind):
        return not value
    if pa.types.is_list(kind) and isinstance(value, list):
        return rng.choice((value[1:], value * 2, [], [None], [_other(rng, kind.value_type, each) for each in value]))
    if pa.types.is_struct(kind) and isinstance(value, dict) and value:
        name = rng.choice(sorted(value))
        return {**value, name: _other(rng, kind.field(name).type, value[name])}
    return None
