"""The manifest: all receipts laid end to end in one table, built in a scratch file and published once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest_source import note_source, receipts_digest
from trackmill.pipeline.shards.receipt_stream import UnitRows, stream_receipts
from trackmill.pipeline.shards.receipts import ROW_SCHEMA, SHARD_SCHEMA, to_parquet
from trackmill.pipeline.shards.totals import Totals
from trackmill.pipeline.storage.parquet.checksum import add_checksum
from trackmill.pipeline.storage.publish import publish_bytes, publish_file
from trackmill.pipeline.storage.scratch import scratch_file
from trackmill.schemas.receipt import ShardInfo

GROUP_ROWS = 1 << 18
"""Rows of a row group. Whoever reads a manifest has one of them in memory: 25 to 80 MB."""

_GROUP_BYTES = 128 << 20
"""Of a row group in memory, where rows have long texts."""


def write_manifest(layout: Layout, seen: Callable[[UnitRows], None] = lambda receipt: None) -> Totals:
    """Lay all receipts end to end: one row per item, by unit and position, and one row per shard.

    Then note what they were made from, see `manifest_source.current_manifest`.

    Args:
        layout: of the data set.
        seen: called with each receipt.

    Returns:
        What they amount to.

    Raises:
        BadReceipt: a receipt is damaged; names it. The manifest stays as it was.
        FileNotFoundError: a receipt vanished meanwhile.
        OSError: storage failed for good.
    """
    totals = Totals()
    shards: list[ShardInfo] = []
    source = receipts_digest(layout)
    path = scratch_file(layout.manifest)
    try:
        with _Rows(str(path)) as rows:
            for receipt in stream_receipts(layout):
                seen(receipt)
                totals.add(receipt)
                shards += receipt.shards
                rows.add(receipt.table)
        items = add_checksum(path)
        publish_file(path, layout.manifest)
    finally:
        path.unlink(missing_ok=True)
    listed = pa.Table.from_pylist([dataclasses.asdict(shard) for shard in shards], schema=SHARD_SCHEMA)
    table = to_parquet(listed)
    publish_bytes(layout.manifest_shards, table)
    note_source(layout, source, items, table, totals.settle())
    return totals


class _Rows:
    """Writes row groups of `GROUP_ROWS` rows."""

    def __init__(self, path: str) -> None:
        self._writer = pq.ParquetWriter(path, ROW_SCHEMA, compression="zstd", write_page_checksum=True)
        self._held: list[pa.Table] = []
        self._rows = self._bytes = self._groups = 0

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self._flush(at_least_one=not self._groups)
        self._writer.close()

    def add(self, table: pa.Table) -> None:
        """Add rows."""
        while self._rows + len(table) >= GROUP_ROWS:
            begin = GROUP_ROWS - self._rows
            self._hold(table.slice(0, begin))
            self._flush()
            table = table.slice(begin)
        self._hold(table)
        if self._bytes >= _GROUP_BYTES:
            self._flush()

    def _hold(self, table: pa.Table) -> None:
        self._held.append(table)
        self._rows += len(table)
        self._bytes += table.nbytes

    def _flush(self, at_least_one: bool = False) -> None:
        if self._rows or at_least_one:
            # Laid out anew: where a page ends must not depend on how many receipts there are.
            group = pa.concat_tables([ROW_SCHEMA.empty_table(), *self._held]).combine_chunks()
            self._writer.write_table(group, row_group_size=max(1, len(group)))
            self._groups += 1
        self._held, self._rows, self._bytes = [], 0, 0
