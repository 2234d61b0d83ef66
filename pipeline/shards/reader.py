"""A data set opened for reading: its rows, its shards, any sample by one ranged read.

Receipts are the truth; the manifest is read where there are none. A tar or a folder of tars alone can be read as well.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.shards.decode import Sample, parse_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest_source import CurrentManifest, current_manifest
from trackmill.pipeline.shards.receipt_stream import UnitRows, in_batches, in_order, read_unit
from trackmill.pipeline.shards.receipts import (
    ROW_SCHEMA,
    SHARD_SCHEMA,
    BadReceipt,
    damaged,
    listed_receipts,
    rows_table,
    typed_rows,
    typed_table,
)
from trackmill.pipeline.shards.rows import HELD_ROWS, RowBlocks, Rows
from trackmill.pipeline.shards.stream import BadShardMember, ShardBytes, index_shard, raw_samples, split_piece
from trackmill.pipeline.shards.tar import checksum
from trackmill.pipeline.shards.totals import Totals
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import read_document
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.parquet.on_disk import StoredTable
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, BadParquet, ParquetData
from trackmill.pipeline.storage.urls import basename, canonical, dirname, join
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

_SHARD_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.tar$")
_KEY = pa.schema([ROW_SCHEMA.field("key")])
_PLACES = pa.schema([ROW_SCHEMA.field("status"), ROW_SCHEMA.field("shard")])
_NAMES = pa.schema([ROW_SCHEMA.field(name) for name in ("key", "status", "uri")])
_COMPARED_KEYS = 20_000


class UnknownKey(InputError):
    """No sample has this key; the text suggests near ones, or says why the item was not stored."""


@dataclass(frozen=True, slots=True)
class UnitHead:
    """A receipt without its rows."""

    unit: int
    shards: list[ShardInfo]
    fingerprint: str


@dataclass
class Dataset:
    """A data set, or tars alone. Its rows are read again when they are wanted, see `trackmill.pipeline.shards.rows`.

    Args:
        url: what was opened.
        layout: of the data set; None for tars alone.
        receipts: in the order of their units; empty where there are none.
        shards: in order; without receipts `sha256` is empty and `num_samples` is -1.
        blocks: rows of receipts or manifest; None where nothing recorded them.
        damaged: (file name, what is wrong) of receipts that could not be read.
        sums: over receipts or manifest; None where nothing recorded them.
    """

    url: str
    layout: Layout | None
    receipts: list[UnitHead]
    shards: list[ShardInfo]
    blocks: RowBlocks | None
    damaged: list[tuple[str, str]] = field(default_factory=list)
    sums: Totals | None = None

    @property
    def recorded(self) -> Rows | None:
        """Rows of receipts or manifest; None where nothing recorded them."""
        return None if self.blocks is None else self.rows

    @cached_property
    def rows(self) -> Rows:
        """One row per item; for tars alone, one per sample, made from the headers (`frames` is the only count then).

        Raises:
            BadShard: tars alone, and one of them is damaged.
        """
        return Rows(self._indexed[0])

    @cached_property
    def stored(self) -> Rows:
        """The rows that have a sample."""
        return Rows(self._indexed[0], stored=True)

    @property
    def totals(self) -> Totals:
        """What all rows amount to; raises what `rows` raises."""
        return self._indexed[1]

    def rows_of(self, shard: str) -> Iterator[ReceiptRow]:
        """The rows of the samples of one shard."""
        return self._indexed[0].of_shard(shard)

    def find(self, key: str) -> ReceiptRow | None:
        """The row with a key; the last one where several have it."""
        found, first = None, 0
        for table in self.rows.tables(_KEY):
            for place in pc.indices_nonzero(pc.equal(table["key"], key)).to_pylist():
                found = first + place
            first += len(table)
        return None if found is None else self.rows[found]

    def search(self, part: str) -> Iterator[tuple[str, str, str]]:
        """(key, status, URI) of the rows whose key or URI holds a text, in their order."""
        for table in self.rows.tables(_NAMES):
            held = [pc.match_substring(table[name], part, ignore_case=True) for name in ("key", "uri")]
            found = table.filter(pc.or_(*held))
            yield from zip(*(found[name].to_pylist() for name in _NAMES.names), strict=True)

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`; empty where there is none.

        Raises:
            DamagedDocument: it is not what was written.
        """
        if self.layout is None or not exists(self.layout.config):
            return {}
        return read_document(self.layout.config)

    @property
    def made_by(self) -> str:
        """Which command made it, for messages: `mining`, or of a data set made from others `filter` and the like."""
        try:
            parts = self.config.get("parts")
        except ValueError:
            parts = None
        derived = parts.get("derived") if isinstance(parts, dict) else None
        return str(derived.get("by")) if isinstance(derived, dict) else "mining"

    def shard_url(self, name: str) -> str:
        """URL of a shard.

        Raises:
            BadReceipt: a name with a path in it, or not that of a tar.
        """
        if not _SHARD_NAME.match(name):
            raise BadReceipt(f"{redact(self.url)}: {name!r} cannot be the name of a shard")
        if self.layout is not None:
            return self.layout.shard(name)
        return self.url if self.url.endswith(".tar") else join(self.url, name)

    @cached_property
    def _indexed(self) -> tuple[RowBlocks, Totals]:
        if self.blocks is not None and self.sums is not None:
            return self.blocks, self.sums
        blocks = RowBlocks(self._index, [0] * len(self.shards), lambda number: self.shards[number].name)
        return blocks, _noted(blocks, self.shards)

    def _index(self, number: int, schema: pa.Schema) -> pa.Table:
        shard = self.shards[number]
        rows = [
            ReceiptRow(
                source_id="",
                key=key,
                uri="",
                status="ok",
                unit=0,
                position=position,
                shard=shard.name,
                offset=offset,
                size=size,
                frames=frames,
            )
            for position, (key, offset, size, frames) in enumerate(
                index_shard(self.shard_url(shard.name), shard.num_bytes, shard.name)
            )
        ]
        return rows_table(rows).select(schema.names)


def open_dataset(url: str, keep_damaged: bool = False, by_manifest: bool = False) -> Dataset:
    """Open the root of a data set, one `.tar`, or a folder of tars.

    Args:
        url: where; any URL that fsspec understands, or a path.
        keep_damaged: list receipts that cannot be read in `Dataset.damaged` instead of failing; for inspection only.
        by_manifest: read the manifest where it was made from exactly the receipts that are there: one file for
            thousands, and `Dataset.receipts` stays empty.

    Raises:
        UnsafeURL: see `trackmill.pipeline.storage.credentials.check_url`.
        FileNotFoundError: there is no data set and no tar at that URL.
        BadReceipt: a receipt or the manifest is damaged.
    """
    url = canonical(url)
    if url.endswith(".tar"):
        if not (shards := _listed_shards(url)):
            raise FileNotFoundError(f"{redact(url)}: no such tar")
        return Dataset(url, None, [], shards, None)
    layout = Layout(url)
    if sizes := listed_receipts(layout):
        if by_manifest and (current := current_manifest(layout)) is not None:
            return _from_manifest(layout, current)
        return _from_receipts(layout, sizes, keep_damaged)
    if exists(layout.manifest):
        return _from_manifest(layout)
    for folder, found_layout in ((layout.shards, layout), (url, None)):
        if shards := _listed_shards(folder):
            return Dataset(url, found_layout, [], shards, None)
    going = "; it was begun, and no unit is finished yet: see trackmill status" if exists(layout.config) else ""
    raise FileNotFoundError(f"{redact(url)}: no data set here: neither receipts/, nor manifest/, nor a .tar{going}")


def read_sample(dataset: Dataset, key: str) -> Sample:
    """One sample by its key, in one ranged read.

    Raises:
        UnknownKey: no sample has the key.
        BadShard: the bytes at its place are not that sample.
        OSError: the shard could not be read.
    """
    row = dataset.find(key)
    if row is None:
        keys = (found for table in dataset.rows.tables(_KEY) for found in table["key"].to_pylist())
        raise UnknownKey(f"{redact(dataset.url)}: no sample {key!r}" + _nearest(key, keys))
    if row.status != "ok":
        raise UnknownKey(f"{redact(dataset.url)}: {key!r} was {row.status}, not stored: {row.reason}")
    return read_row(dataset, row)


def whole_key(dataset: Dataset, part: str) -> str:
    """The key that is meant by a part of a key or URI, if no other row holds it; what names none comes back as it is.

    Raises:
        UnknownKey: several rows hold that part.
    """
    if not part or dataset.find(part) is not None:
        return part
    alike = list(itertools.islice(dataset.search(part), 4))
    if len(alike) > 1:
        shown = ", ".join(key for key, _, _ in alike[:3]) + (", ..." if len(alike) > 3 else "")
        raise UnknownKey(f"{redact(dataset.url)}: several samples hold {part!r}: {shown}; --keys lists all")
    return alike[0][0] if alike else part


def read_row(dataset: Dataset, row: ReceiptRow) -> Sample:
    """The sample of a row that is `ok`; raises what `read_sample` raises."""
    if row.offset < 0 or row.size <= 0:
        raise BadShardMember(
            row.shard, f"{row.key}.json", f"has no place in its receipt: {row.size} bytes at {row.offset}"
        )
    piece = read_bytes(dataset.shard_url(row.shard), row.offset, row.size)
    if row.checksum and checksum(piece) != row.checksum:
        raise BadShardMember(row.shard, f"{row.key}.json", "is damaged: the checksum in its receipt is another")
    sample = parse_sample(split_piece(piece, row.shard, row.offset))
    if sample.key != row.key:
        raise BadShardMember(
            row.shard, f"{row.key}.json", f"is not at byte {row.offset} as its receipt says: {sample.key!r} is"
        )
    return sample


def iter_samples(dataset: Dataset, shard: ShardInfo) -> Iterator[Sample]:
    """All samples of a shard in the order they lie, streaming.

    Raises:
        BadShard: damaged, incomplete, or members of one sample that do not lie side by side.
        OSError: the shard could not be read.
    """
    seen: set[str] = set()
    for raw in raw_samples(ShardBytes(dataset.shard_url(shard.name), shard.num_bytes), shard.name):
        if raw.key in seen:
            raise BadShardMember(shard.name, raw.members[0][0], "does not lie beside the rest of its sample")
        seen.add(raw.key)
        yield parse_sample(raw)


def _from_receipts(layout: Layout, sizes: dict[int, int], keep_damaged: bool) -> Dataset:
    def first(unit: int) -> UnitRows | tuple[str, str]:
        try:
            return read_unit(layout, unit, sizes[unit])
        except BadReceipt as error:
            if not keep_damaged:
                raise
            return receipt_name(unit), str(error)

    receipts: list[UnitHead] = []
    blocks = RowBlocks(
        lambda number, schema: read_unit(layout, receipts[number].unit, schema=schema).table,
        read_sizes := [],
        lambda number: redact(layout.receipt(receipt_name(receipts[number].unit))),
    )
    damaged_files, totals = [], Totals()
    for found in in_order(first, list(sizes), lambda unit: sizes[unit]):
        if isinstance(found, UnitRows):
            receipts.append(UnitHead(found.unit, found.shards, found.fingerprint))
            read_sizes.append(sizes[found.unit])
            blocks.note(found.table)
            totals.add(found)
        else:
            damaged_files.append(found)
    shards = [shard for receipt in receipts for shard in receipt.shards]
    return Dataset(layout.root, layout, receipts, shards, blocks, damaged_files, totals.settle())


def _from_manifest(layout: Layout, current: CurrentManifest | None = None) -> Dataset:
    try:
        table = StoredTable(layout.manifest)

        def read(number: int, schema: pa.Schema) -> pa.Table:
            try:
                return typed_table(table.group(number), schema)
            except ValueError as error:
                raise damaged(layout.manifest, "manifest", error) from None

        groups = len(table.group_rows)
        blocks = RowBlocks(
            read, [table.num_bytes // groups] * groups if groups else [], lambda _: redact(layout.manifest)
        )
        if current is not None and sum(table.group_rows) > HELD_ROWS:
            # What the rows amount to is written down: to know where they lie, two columns are enough.
            for _ in blocks.note_all(_PLACES):
                pass
            return Dataset(layout.root, layout, [], current.shards, blocks, sums=current.totals)
        shards = manifest_shards(layout)
        return Dataset(layout.root, layout, [], shards, blocks, sums=_noted(blocks, shards))
    except BadParquet as error:
        raise damaged(layout.manifest, "manifest", error) from None


def manifest_tables(layout: Layout, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of the manifest, a row group at a time, with the columns of a schema.

    Raises:
        BadReceipt: it is damaged.
        OSError: there is none, or storage failed for good.
    """
    try:
        table = StoredTable(layout.manifest)
        try:
            for number in range(len(table.group_rows)):
                yield typed_table(table.group(number), schema)
        finally:
            table.close()
    except ValueError as error:
        raise damaged(layout.manifest, "manifest", error) from None


def manifest_shards(layout: Layout) -> list[ShardInfo]:
    """The shards that the manifest lists.

    Raises:
        BadReceipt: its table is damaged.
    """
    url = layout.manifest_shards
    try:
        data = ParquetData(read_bytes(url, max_bytes=MAX_TABLE_FILE_BYTES))
        return [ShardInfo(**row) for row in typed_rows(data, SHARD_SCHEMA)]
    except ValueError as error:
        raise damaged(url, "manifest", error) from None


def _noted(blocks: RowBlocks, shards: list[ShardInfo]) -> Totals:
    totals = Totals()
    totals.add_shards(shards)
    for table in in_batches(blocks.note_all()):
        totals.add_rows(table)
    return totals


def _listed_shards(url: str) -> list[ShardInfo]:
    try:
        files = list_files(url, sizes=True)
    except FileNotFoundError:
        return []
    # Compared without the scheme: listings of some stores spell it with more slashes than people do.
    here = _path(url)
    names = [(basename(f.uri), f) for f in files if here in (_path(f.uri), _path(dirname(f.uri)))]
    return [ShardInfo(name=n, num_bytes=f.size, sha256="", num_samples=-1) for n, f in names if _SHARD_NAME.match(n)]


def _path(url: str) -> str:
    return url.split("://", 1)[-1].strip("/")


def _nearest(key: str, keys: Iterable[str]) -> str:
    # Comparing is slow: where there are millions of keys, those that hold a part of what was typed come first.
    parts = [part for part in key.split("-") if len(part) > 2]
    first: list[str] = []
    alike: list[str] = []
    near: list[str] = []
    count = 0
    for other in keys:
        count += 1
        if other.startswith(key) and len(near) < 3:
            near.append(other)
        if len(first) < _COMPARED_KEYS:
            first.append(other)
        if len(alike) < _COMPARED_KEYS and any(part in other for part in parts):
            alike.append(other)
    candidates = alike if count > _COMPARED_KEYS else first
    near = near or difflib.get_close_matches(key, candidates, n=3, cutoff=0.3)
    return f"; did you mean {', '.join(near)}?" if near else ""
