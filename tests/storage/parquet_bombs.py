"""Parquet files that unfold, or whose footer and pages lie: written with pyarrow, or byte by byte."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12


def written(table: pa.Table, **options: Any) -> bytes:
    """A table as a small file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", **options)
    return buffer.getvalue()


def repeated_number(rows: int) -> bytes:
    """Rows of zeros: some 10 bytes for a million of them."""
    table = pa.table({"frame": np.zeros(1 << 20, np.int64)})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        for _ in range(rows >> 20):
            writer.write_table(table)
    return buffer.getvalue()


def repeated_text(rows: int, length: int, **options: Any) -> bytes:
    """One text in every row; in the dictionary it stands once, unless the encoding is another one."""
    texts = pa.array(np.zeros(rows, np.int32)), pa.array(["a" * length])
    column = pa.DictionaryArray.from_arrays(*texts)
    plain = column.cast(pa.string()) if options else column
    return written(pa.table({"frame": np.zeros(rows, np.int64), "name": plain}), **options)


def long_lists(rows: int, length: int) -> bytes:
    """Lists of zeros."""
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1, dtype=np.int32) * length), pa.array(np.zeros(rows * length, np.float32))
    )
    return written(pa.table({"frame": np.zeros(rows, np.int64), "name": lists}))


def one_page(rows: int, unpacked: int = 0, declared: int = 100, values: int | None = None) -> bytes:
    """A file of one column `frame` of missing whole numbers, in one page.

    Args:
        rows: what the footer says.
        unpacked: bytes of the page, as its header says; 0: the truth.
        declared: the same in the footer.
        values: of the page, as its header says; None: `rows`.
    """
    count = rows if values is None else values
    levels = _varint(count << 1) + b"\0"
    plain = struct.pack("<I", len(levels)) + levels
    packed = bytes(pa.Codec("zstd").compress(plain, asbytes=True))
    data_header = _fields((1, _I32, count), (2, _I32, 0), (3, _I32, 3), (4, _I32, 3))
    header = _fields((1, _I32, 0), (2, _I32, unpacked or len(plain)), (3, _I32, len(packed)), (5, _STRUCT, data_header))
    page = header + packed
    column = _fields(
        (1, _I32, 2),
        (2, _LIST, _list(_I32, [_zigzag(0)])),
        (3, _LIST, _list(_BINARY, [_varint(5) + b"frame"])),
        (4, _I32, 6),
        (5, _I64, rows),
        (6, _I64, declared),
        (7, _I64, len(page)),
        (9, _I64, 4),
    )
    chunk = _fields((2, _I64, 4), (3, _STRUCT, column))
    group = _fields((1, _LIST, _list(_STRUCT, [chunk])), (2, _I64, declared), (3, _I64, rows))
    return _file(page, [_element("schema", children=1), _element("frame", kind=2)], rows, [group])


def nested_schema(depth: int) -> bytes:
    """A column inside so many others."""
    around = [_element("a", children=1) for _ in range(depth + 1)]
    return _file(b"", [*around, _element("frame", kind=2)], 0, [])


def crowded_footer(columns: int) -> bytes:
    """A row group of so many columns that say nothing: three bytes each, six hundred in memory."""
    group = _fields((1, _LIST, _list(_STRUCT, [_fields((2, _I64, 0))] * columns)), (2, _I64, 0), (3, _I64, 0))
    return _file(b"", [_element("schema", children=1), _element("frame", kind=2)], 0, [group])


def _file(pages: bytes, schema: list[bytes], rows: int, groups: list[bytes]) -> bytes:
    footer = _fields(
        (1, _I32, 1), (2, _LIST, _list(_STRUCT, schema)), (3, _I64, rows), (4, _LIST, _list(_STRUCT, groups))
    )
    return b"PAR1" + pages + footer + struct.pack("<I", len(footer)) + b"PAR1"


def _element(name: str, kind: int | None = None, children: int | None = None) -> bytes:
    text = _varint(len(name)) + name.encode()
    fields: list[tuple[int, int, Any]] = [(1, _I32, kind), (3, _I32, 1), (4, _BINARY, text), (5, _I32, children)]
    return _fields(*(field for field in fields if field[2] is not None))


def _fields(*fields: tuple[int, int, Any]) -> bytes:
    """A Thrift structure in the compact protocol: (number, kind, value), the numbers ascending."""
    out, last = b"", 0
    for number, kind, value in fields:
        out += bytes([(number - last) << 4 | kind]) + (_zigzag(value) if kind in (_I32, _I64) else value)
        last = number
    return out + b"\0"


def _list(kind: int, items: list[bytes]) -> bytes:
    head = bytes([len(items) << 4 | kind]) if len(items) < 15 else bytes([0xF0 | kind]) + _varint(len(items))
    return head + b"".join(items)


def _zigzag(number: int) -> bytes:
    return _varint((number << 1) ^ (number >> 63))


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])
