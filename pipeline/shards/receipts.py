"""Receipts as Parquet: written last, read to know what is done. See `receipt_stream` for many of them."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.parquet.checksum import with_checksum
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData, RowGroup
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

_ARROW = {"str": pa.string(), "Status": pa.string(), "int": pa.int64(), "float": pa.float64()}
ROW_SCHEMA = pa.schema([(field.name, _ARROW[str(field.type)]) for field in dataclasses.fields(ReceiptRow)])
SHARD_SCHEMA = pa.schema([(field.name, _ARROW[str(field.type)]) for field in dataclasses.fields(ShardInfo)])
ADDED_LATER: dict[str, int | float] = {"checksum": 0, "mean_score": 0.0}
"""Columns that receipts of older versions do not have, each with the value that says so."""

RECEIPT_MEMORY_FLOOR = 128 << 20
"""What a receipt may take in memory even if its file is small, see `trackmill.pipeline.storage.parquet`: several are
read at once. It suffices for 100,000 items, and larger files may take more."""

ROW_OBJECT_BYTES = 1400
"""What a row takes as Python objects."""

_ROWS_AT_ONCE = 4096
_LISTING_THREADS = 16
_LONGEST_NAME = 200
_RECEIPT_NAME = re.compile(r"^part-(\d{8,})\.parquet$")


class BadReceipt(InputError):
    """A receipt that cannot be read; the text names the file and says how to mend it."""


def to_parquet(table: pa.Table) -> bytes:
    """A table as Parquet bytes, with checksums of the pages and of the whole."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return with_checksum(buffer.getvalue())


def rows_table(rows: Iterable[ReceiptRow]) -> pa.Table:
    """Receipt rows as an Arrow table."""
    return pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=ROW_SCHEMA)


def write_receipt(
    layout: Layout, unit: int, rows: Sequence[ReceiptRow], shards: Sequence[ShardInfo], fingerprint: str
) -> None:
    """Declare a unit complete. Its shards must have been published before."""
    metadata = {
        b"trackmill.shards": orjson.dumps([dataclasses.asdict(shard) for shard in shards]),
        b"trackmill.fingerprint": fingerprint.encode(),
    }
    table = rows_table(rows).replace_schema_metadata(metadata)
    publish_bytes(layout.receipt(receipt_name(unit)), to_parquet(table))


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """One receipt as read back."""

    unit: int
    rows: list[ReceiptRow]
    shards: list[ShardInfo]
    fingerprint: str


def read_receipt(url: str) -> Receipt:
    """Read one receipt.

    Raises:
        BadReceipt: not a receipt, or damaged.
    """
    try:
        data = ParquetData(read_bytes(url, max_bytes=MAX_TABLE_FILE_BYTES), RECEIPT_MEMORY_FLOOR)
        shards = listed_shards(data.metadata)
        rows = [ReceiptRow(**row) for row in typed_rows(data, ROW_SCHEMA)]
        unit = int(basename(url).removeprefix("part-").removesuffix(".parquet"))
        return Receipt(unit, rows, shards, data.metadata[b"trackmill.fingerprint"].decode())
    except (KeyError, ValueError) as error:
        raise damaged(url, "receipt", error) from None


def listed_shards(metadata: Mapping[bytes, bytes]) -> list[ShardInfo]:
    """The shards that a receipt's metadata lists.

    Raises:
        KeyError: it lists none.
        ValueError: the list is damaged.
    """
    entries = orjson.loads(metadata[b"trackmill.shards"])
    if not isinstance(entries, list):
        raise ValueError("its list of shards is none")
    return [shard_info(entry) for entry in entries]


def shard_info(entry: Any) -> ShardInfo:
    """A shard as receipts and manifests write it down.

    Raises:
        ValueError: something else.
    """
    kinds = {field.name: str(field.type) for field in dataclasses.fields(ShardInfo)}
    if not isinstance(entry, dict) or {name: type(value).__name__ for name, value in entry.items()} != kinds:
        raise ValueError(f"{str(entry)[:80]!r} should be a shard with {', '.join(kinds)}")
    if len(entry["name"]) > _LONGEST_NAME:
        raise ValueError(f"no shard is called {entry['name'][:40]!r}..., of {len(entry['name']):,} characters")
    return ShardInfo(**entry)


def typed_table(data: RowGroup, schema: pa.Schema, row_bytes: int = 0) -> pa.Table:
    """The columns of a schema, without an empty cell.

    Args:
        data: the file, or a row group of it.
        schema: of texts and numbers.
        row_bytes: see `ParquetData.read`.

    Raises:
        ValueError: a column is missing (but those of `ADDED_LATER`), is of another type, or has an empty cell.
    """
    there = [name for name in schema.names if name in data.schema.names or name not in ADDED_LATER]
    try:
        table = data.read(there, row_bytes=row_bytes).cast(pa.schema([schema.field(name) for name in there]))
    except pa.ArrowException as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None
    for name in there:
        if table[name].null_count:
            raise ValueError(f"column {name!r} has empty cells")
    for name in schema.names:
        if name not in there:
            table = table.append_column(schema.field(name), pa.repeat(pa.scalar(ADDED_LATER[name]), len(table)))
    return table.select(schema.names)


def typed_rows(data: RowGroup, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """The rows of `typed_table`, a few thousand at a time as Python objects."""
    for batch in typed_table(data, schema, ROW_OBJECT_BYTES).to_batches(_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def damaged(url: str, what: str, error: Exception) -> BadReceipt:
    """The error for a receipt or manifest that cannot be read."""
    missing = f"it says nothing of {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
    return BadReceipt(f"{redact(url)}: not a readable {what} ({missing}); delete it and mine again")


def is_receipt(name: str) -> bool:
    """Whether a file of the folder is a receipt, by its name."""
    return _RECEIPT_NAME.match(name) is not None


def listed_receipts(layout: Layout) -> dict[int, int]:
    """By unit, in their order: the lengths in bytes of the receipts that are there; 0 where a listing tells none.

    Raises:
        OSError: they could not be listed.
    """
    try:
        files = list_files(layout.receipts)
    except FileNotFoundError:
        return {}
    found = {int(match[1]): file.size for file in files if (match := _RECEIPT_NAME.match(basename(file.uri)))}
    return dict(sorted(found.items()))


def done_units(layout: Layout) -> set[int]:
    """Numbers of the units that have a receipt."""
    return set(listed_receipts(layout))


def anything_done(layout: Layout) -> bool:
    """Whether units were finished: there are receipts, or the manifest, which is made of them and suffices without."""
    return bool(done_units(layout)) or exists(layout.manifest)


def read_receipts(layout: Layout, units: Iterable[int] | None = None) -> list[Receipt]:
    """All receipts, or those of some units, in the order of their units: as objects, so for small data sets only.

    Raises:
        BadReceipt: one of them is damaged.
    """
    wanted = sorted(done_units(layout) if units is None else units)
    with ThreadPoolExecutor(_LISTING_THREADS) as pool:
        return list(pool.map(lambda unit: read_receipt(layout.receipt(receipt_name(unit))), wanted))
