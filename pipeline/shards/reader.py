"""A data set opened for reading: its rows, its shards, any sample by one ranged read.

Receipts are the truth; the manifest is read where there are none. A tar or a folder of tars alone can be read as well.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from trackmill.pipeline.shards.decode import Sample, parse_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import (
    ROW_SCHEMA,
    SHARD_SCHEMA,
    BadReceipt,
    Receipt,
    damaged,
    done_units,
    read_receipt,
    typed_rows,
)
from trackmill.pipeline.shards.stream import BadShardMember, ShardBytes, index_shard, raw_samples, split_piece
from trackmill.pipeline.shards.tar import checksum
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import read_document
from trackmill.pipeline.storage.files import basename, canonical, dirname, exists, join, list_files, read_bytes
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

_SHARD_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.tar$")
_THREADS = 16
_COMPARED_KEYS = 20_000


class UnknownKey(InputError):
    """No sample has this key; the text suggests near ones, or says why the item was not stored."""


@dataclass
class Dataset:
    """A data set, or tars alone.

    Args:
        url: what was opened.
        layout: of the data set; None for tars alone.
        receipts: in the order of their units; empty where there are none.
        shards: in order; without receipts `sha256` is empty and `num_samples` is -1.
        recorded: rows of receipts or manifest; None where nothing recorded them.
        damaged: (file name, what is wrong) of receipts that could not be read.
    """

    url: str
    layout: Layout | None
    receipts: list[Receipt]
    shards: list[ShardInfo]
    recorded: list[ReceiptRow] | None
    damaged: list[tuple[str, str]] = field(default_factory=list)

    @cached_property
    def rows(self) -> list[ReceiptRow]:
        """One row per item; for tars alone, one per sample, made from the headers (`frames` is the only count then).

        Raises:
            BadShard: tars alone, and one of them is damaged.
        """
        return self.recorded if self.recorded is not None else [row for s in self.shards for row in self._index(s)]

    @cached_property
    def stored(self) -> list[ReceiptRow]:
        """The rows that have a sample."""
        return [row for row in self.rows if row.status == "ok"]

    @cached_property
    def by_key(self) -> dict[str, ReceiptRow]:
        """Rows by key."""
        return {row.key: row for row in self.rows}

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`; empty where there is none.

        Raises:
            DamagedDocument: it is not what was written.
        """
        if self.layout is None or not exists(self.layout.config):
            return {}
        return read_document(self.layout.config)

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

    def _index(self, shard: ShardInfo) -> Iterator[ReceiptRow]:
        indexed = index_shard(self.shard_url(shard.name), shard.num_bytes, shard.name)
        for position, (key, offset, size, frames) in enumerate(indexed):
            place = {"shard": shard.name, "offset": offset, "size": size, "frames": frames}
            yield ReceiptRow(source_id="", key=key, uri="", status="ok", unit=0, position=position, **place)  # type: ignore[arg-type]


def open_dataset(url: str, keep_damaged: bool = False) -> Dataset:
    """Open the root of a data set, one `.tar`, or a folder of tars.

    Args:
        url: where; any URL that fsspec understands, or a path.
        keep_damaged: list receipts that cannot be read in `Dataset.damaged` instead of failing; for inspection only.

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
    units = sorted(done_units(layout))
    if units:
        return _from_receipts(layout, units, keep_damaged)
    if exists(layout.manifest):
        rows = [ReceiptRow(**row) for row in _read_table(layout.manifest, ROW_SCHEMA)]
        shards = [ShardInfo(**row) for row in _read_table(layout.manifest_shards, SHARD_SCHEMA)]
        return Dataset(url, layout, [], shards, rows)
    for folder, found_layout in ((layout.shards, layout), (url, None)):
        if shards := _listed_shards(folder):
            return Dataset(url, found_layout, [], shards, None)
    raise FileNotFoundError(f"{redact(url)}: no data set here: neither receipts/, nor manifest/, nor a .tar")


def read_sample(dataset: Dataset, key: str) -> Sample:
    """One sample by its key, in one ranged read.

    Raises:
        UnknownKey: no sample has the key.
        BadShard: the bytes at its place are not that sample.
        OSError: the shard could not be read.
    """
    row = dataset.by_key.get(key)
    if row is None:
        raise UnknownKey(f"{redact(dataset.url)}: no sample {key!r}" + _nearest(key, dataset.by_key))
    if row.status != "ok":
        raise UnknownKey(f"{redact(dataset.url)}: {key!r} was {row.status}, not stored: {row.reason}")
    return read_row(dataset, row)


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


def _from_receipts(layout: Layout, units: list[int], keep_damaged: bool) -> Dataset:
    def read(unit: int) -> Receipt | tuple[str, str]:
        name = receipt_name(unit)
        try:
            return read_receipt(layout.receipt(name))
        except BadReceipt as error:
            if not keep_damaged:
                raise
            return name, str(error)

    with ThreadPoolExecutor(_THREADS) as pool:
        read_back = list(pool.map(read, units))
    receipts = [receipt for receipt in read_back if isinstance(receipt, Receipt)]
    return Dataset(
        url=layout.root,
        layout=layout,
        receipts=receipts,
        shards=[shard for receipt in receipts for shard in receipt.shards],
        recorded=[row for receipt in receipts for row in sorted(receipt.rows, key=lambda row: row.position)],
        damaged=[entry for entry in read_back if not isinstance(entry, Receipt)],
    )


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


def _read_table(url: str, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    try:
        yield from typed_rows(ParquetData(read_bytes(url, max_bytes=MAX_TABLE_FILE_BYTES)), schema)
    except ValueError as error:
        raise damaged(url, "manifest", error) from None


def _nearest(key: str, keys: Iterable[str]) -> str:
    # Comparing is slow: where there are millions of keys, those that hold a part of what was typed come first.
    keys = list(keys)
    parts = [part for part in key.split("-") if len(part) > 2]
    candidates = [k for k in keys if any(part in k for part in parts)] if len(keys) > _COMPARED_KEYS else keys
    near = [k for k in keys if k.startswith(key)][:3]
    near = near or difflib.get_close_matches(key, candidates[:_COMPARED_KEYS], n=3, cutoff=0.3)
    return f"; did you mean {', '.join(near)}?" if near else ""
