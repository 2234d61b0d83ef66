"""Receipts and the manifest as Parquet: written last, read to know what is done."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.storage.files import basename, list_files, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

_ARROW = {"str": pa.string(), "Status": pa.string(), "int": pa.int64(), "float": pa.float64()}
ROW_SCHEMA = pa.schema([(field.name, _ARROW[str(field.type)]) for field in dataclasses.fields(ReceiptRow)])
SHARD_SCHEMA = pa.schema([(field.name, _ARROW[str(field.type)]) for field in dataclasses.fields(ShardInfo)])
_LISTING_THREADS = 16
_RECEIPT_NAME = re.compile(r"^part-(\d{8,})\.parquet$")


class BadReceipt(InputError):
    """A receipt that cannot be read; the text names the file and says how to mend it."""


def to_parquet(table: pa.Table) -> bytes:
    """A table as Parquet bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


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
    data = read_bytes(url)
    try:
        table = pq.read_table(io.BytesIO(data))
        metadata = table.schema.metadata or {}
        shards = [ShardInfo(**entry) for entry in orjson.loads(metadata[b"trackmill.shards"])]
        columns = table.select(ROW_SCHEMA.names).cast(ROW_SCHEMA)
        if any(column.null_count for column in columns.columns):
            raise ValueError("it has empty cells")
        rows = [ReceiptRow(**row) for row in columns.to_pylist()]
        unit = int(basename(url).removeprefix("part-").removesuffix(".parquet"))
        return Receipt(unit, rows, shards, metadata[b"trackmill.fingerprint"].decode())
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise BadReceipt(
            f"{url}: not a readable receipt ({type(error).__name__}: {error}); delete it and mine again"
        ) from None


def done_units(layout: Layout) -> set[int]:
    """Numbers of the units that have a receipt."""
    try:
        files = list_files(layout.receipts)
    except FileNotFoundError:
        return set()
    return {int(match[1]) for file in files if (match := _RECEIPT_NAME.match(basename(file.uri)))}


def read_receipts(layout: Layout, units: Iterable[int] | None = None) -> list[Receipt]:
    """All receipts, or those of some units, in the order of their units.

    Raises:
        BadReceipt: one of them is damaged.
    """
    wanted = sorted(done_units(layout) if units is None else units)
    with ThreadPoolExecutor(_LISTING_THREADS) as pool:
        return list(pool.map(lambda unit: read_receipt(layout.receipt(receipt_name(unit))), wanted))


def write_manifest(layout: Layout, receipts: Sequence[Receipt]) -> None:
    """Lay all receipts end to end: one row per item, and one row per shard."""
    rows = (row for receipt in receipts for row in sorted(receipt.rows, key=lambda row: row.position))
    publish_bytes(layout.manifest, to_parquet(rows_table(rows)))
    shards = [dataclasses.asdict(shard) for receipt in receipts for shard in receipt.shards]
    publish_bytes(layout.manifest_shards, to_parquet(pa.Table.from_pylist(shards, schema=SHARD_SCHEMA)))
