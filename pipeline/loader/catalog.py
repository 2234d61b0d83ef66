"""The samples of a data set and their places in the shards, as NumPy columns instead of an object per sample."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset, open_dataset
from trackmill.pipeline.shards.receipts import (
    RECEIPT_MEMORY_FLOOR,
    SHARD_SCHEMA,
    BadReceipt,
    damaged,
    done_units,
    listed_shards,
    typed_table,
)
from trackmill.pipeline.shards.stream import index_shard
from trackmill.pipeline.sidecars.about import Sidecars, find_sidecars
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import canonical, exists, read_bytes
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.receipt import ShardInfo

_COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),
        ("shard", pa.string()),
        *((name, pa.int64()) for name in ("offset", "size", "frames", "objects", "proposals", "checksum")),
    ]
)
_THREADS = 16


@dataclass(frozen=True, eq=False, repr=False)
class Catalog:
    """The samples of a data set, shard by shard in the order of the files; pickled without its keys.

    Args:
        url: URL of the data set.
        shards: the S shards that hold samples: name, bytes, SHA-256 (empty for a folder of tars) and samples.
        shard_urls: URL of each.
        first: (S + 1,) int64: shard s holds the samples from `first[s]` up to, without, `first[s + 1]`.
        offsets: (N,) int64 bytes, where the sample begins in its shard.
        sizes: (N,) int64 bytes, headers and padding included.
        frames: (N,) int32 number of frames, 1 for a picture.
        annotated: (N,) bool, whether the sample has annotated objects; None where no receipt says.
        checksums: (N,) int64, see `trackmill.schemas.receipt.ReceiptRow`; 0 where no receipt holds one.
        left_out: number of samples without a box, which are of no use in training; N does not count them.
        fingerprint: SHA-256 over names, sizes and hashes of the shards and the places of the samples; it does not
            depend on the URL or on sidecars.
        sidecars: tables beside the shards, see `trackmill.pipeline.sidecars`.
    """

    url: str
    shards: list[ShardInfo]
    shard_urls: list[str]
    first: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    frames: NDArray[np.int32]
    annotated: NDArray[np.bool_] | None
    checksums: NDArray[np.int64]
    left_out: int
    fingerprint: str
    sidecars: Sidecars
    _keys: pa.ChunkedArray | None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def num_distinct(self) -> int:
        """Samples, each counted once, also where it is repeated."""
        begins = np.diff(self.offsets, prepend=-1) != 0
        begins[self.first[:-1]] = True
        return int(np.count_nonzero(begins))

    def shard_of(self, samples: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Index of the shard of each sample."""
        return np.searchsorted(self.first, samples, side="right") - 1

    def first_copy(self, sample: int) -> int:
        """The sample itself, or the first of its copies where it is repeated."""
        begin = int(self.first[self.shard_of(sample)])
        return begin + int(np.searchsorted(self.offsets[begin : sample + 1], self.offsets[sample]))

    def key(self, sample: int) -> str:
        """Key of a sample; in a worker process, which has no keys, its shard and offset."""
        if self._keys is not None:
            return str(self._keys[sample].as_py())
        return f"{self.shards[int(self.shard_of(sample))].name} at byte {self.offsets[sample]}"

    def only(self, kept: NDArray[np.bool_]) -> Catalog:
        """The catalog of some of the samples, in the same order; shards without any are left out.

        Args:
            kept: (N,) which; at least one. `fingerprint` and `left_out` stay those of the whole data set.
        """
        if kept.all():
            return self
        places = np.repeat(np.arange(len(self.shards)), np.diff(self.first))[kept]
        used, counts = np.unique(places, return_counts=True)
        return dataclasses.replace(
            self,
            shards=[self.shards[i] for i in used],
            shard_urls=[self.shard_urls[i] for i in used],
            first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            offsets=self.offsets[kept],
            sizes=self.sizes[kept],
            frames=self.frames[kept],
            annotated=None if self.annotated is None else self.annotated[kept],
            checksums=self.checksums[kept],
            _keys=None if self._keys is None else self._keys.filter(pa.array(kept)),
        )

    def repeated(self, times: NDArray[np.int64]) -> Catalog:
        """The catalog with each sample several times, one after the other: an epoch takes it so often.

        Args:
            times: (N,) at least 1 each. `fingerprint` and `left_out` stay those of the data set.
        """
        if (times == 1).all():
            return self
        ends = np.concatenate([[0], np.cumsum(times)])
        places = np.repeat(np.arange(len(self)), times)
        return dataclasses.replace(
            self,
            first=ends[self.first].astype(np.int64),
            offsets=self.offsets[places],
            sizes=self.sizes[places],
            frames=self.frames[places],
            annotated=None if self.annotated is None else self.annotated[places],
            checksums=self.checksums[places],
            _keys=None if self._keys is None else self._keys.take(pa.array(places)),
        )

    def __getstate__(self) -> dict[str, object]:
        # Keys take half of the memory and only name bad samples, which the training process does.
        return {**self.__dict__, "_keys": None}


def read_catalog(url: str, needs_boxes: bool = True) -> Catalog:
    """Read the catalog of a data set that mining wrote, of one tar, or of a folder of tars.

    Args:
        url: root of the data set; any URL that fsspec understands, or a path.
        needs_boxes: leave out samples without objects and proposals; without it they stay, for whoever has boxes of
            them in a sidecar.

    Raises:
        FileNotFoundError: there is no data set and no tar.
        BadReceipt: a receipt or the manifest is damaged or contradicts itself; the message says which and how to mend
            it.
        BadShard: a tar without receipts is damaged.
        ValueError: there is no sample to train on.
    """
    url = canonical(url)
    layout = Layout(url)
    units = [] if url.endswith(".tar") else sorted(done_units(layout))
    if units:
        rows, shards = _read_receipts(layout, units)
    elif not url.endswith(".tar") and exists(layout.manifest):
        rows, shards = _read_manifest(layout)
    else:
        return _read_tars(open_dataset(url))
    stored = rows.filter(pc.equal(rows["status"], "ok"))
    with_boxes = stored
    if needs_boxes:
        with_boxes = stored.filter(pc.greater(pc.add(stored["objects"], stored["proposals"]), 0))
    names = ("offset", "size", "frames", "checksum")
    columns = {name: with_boxes[name].to_numpy().astype(np.int64, copy=False) for name in names}
    dataset = Dataset(url, layout, [], shards, None)
    places = _shard_column(with_boxes["shard"], shards, url)
    annotated = with_boxes["objects"].to_numpy() > 0
    return _catalog(dataset, places, columns, with_boxes["key"], len(stored) - len(with_boxes), annotated)


def _read_receipts(layout: Layout, units: list[int]) -> tuple[pa.Table, list[ShardInfo]]:
    def read(unit: int) -> tuple[pa.Table, list[ShardInfo]]:
        url = layout.receipt(receipt_name(unit))
        try:
            data = ParquetData(read_bytes(url, max_bytes=MAX_TABLE_FILE_BYTES), RECEIPT_MEMORY_FLOOR)
            return typed_table(data, _COLUMNS), listed_shards(data.metadata)
        except (KeyError, ValueError) as error:
            raise damaged(url, "receipt", error) from None

    with ThreadPoolExecutor(_THREADS) as pool:
        receipts = list(pool.map(read, units))
    return pa.concat_tables([table for table, _ in receipts]), [shard for _, shards in receipts for shard in shards]


def _read_manifest(layout: Layout) -> tuple[pa.Table, list[ShardInfo]]:
    def read(url: str, schema: pa.Schema) -> pa.Table:
        try:
            return typed_table(ParquetData(read_bytes(url, max_bytes=MAX_TABLE_FILE_BYTES)), schema)
        except ValueError as error:
            raise damaged(url, "manifest", error) from None

    shards = read(layout.manifest_shards, SHARD_SCHEMA)
    return read(layout.manifest, _COLUMNS), [ShardInfo(**row) for row in shards.to_pylist()]


def _shard_column(names: pa.ChunkedArray, shards: Sequence[ShardInfo], url: str) -> NDArray[np.int64]:
    indices = pc.index_in(names, value_set=pa.array([shard.name for shard in shards], pa.string()))
    if indices.null_count:
        name = names.filter(pc.is_null(indices))[0].as_py()
        raise BadReceipt(f"{redact(url)}: a row names the shard {name!r}, which no receipt lists; mine its unit again")
    places: NDArray[np.int64] = indices.to_numpy().astype(np.int64)
    return places


def _read_tars(dataset: Dataset) -> Catalog:
    def index(shard: ShardInfo) -> list[tuple[str, int, int, int]]:
        return index_shard(dataset.shard_url(shard.name), shard.num_bytes, shard.name)

    with ThreadPoolExecutor(_THREADS) as pool:
        entries_of = list(pool.map(index, dataset.shards))
    places = np.repeat(np.arange(len(entries_of)), [len(entries) for entries in entries_of]).astype(np.int64)
    flat = [entry for entries in entries_of for entry in entries]
    numbers = np.array([entry[1:] for entry in flat], np.int64).reshape(-1, 3)
    columns = {name: numbers[:, i] for i, name in enumerate(("offset", "size", "frames"))}
    columns["checksum"] = np.zeros(len(flat), np.int64)
    return _catalog(dataset, places, columns, pa.chunked_array([pa.array([e[0] for e in flat], pa.string())]), 0, None)


def _catalog(
    dataset: Dataset,
    places: NDArray[np.int64],
    columns: dict[str, NDArray[np.int64]],
    keys: pa.ChunkedArray,
    left_out: int,
    annotated: NDArray[np.bool_] | None,
) -> Catalog:
    if not len(places):
        why = f"all {left_out} samples are without a single box" if left_out else "nothing was stored"
        raise InputError(f"{redact(dataset.url)}: no sample to train on: {why}; mine again, or from other media")
    # Sorted by name, since receipts and listings order the shards of one unit differently.
    by_name = sorted(range(len(dataset.shards)), key=lambda i: dataset.shards[i].name)
    dataset.shards = [dataset.shards[i] for i in by_name]
    places = np.argsort(np.array(by_name))[places]
    order = np.lexsort((columns["offset"], places))
    places, offsets, sizes = places[order], columns["offset"][order], columns["size"][order]
    _check_places(dataset, places, offsets, sizes)
    used, counts = np.unique(places, return_counts=True)
    shards = [dataset.shards[i] for i in used]
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    names = [(shard.name, shard.num_bytes, shard.sha256) for shard in shards]
    digest = hashlib.sha256(orjson.dumps(names))
    for column in (first, offsets, sizes):
        digest.update(np.ascontiguousarray(column, "<i8").data)
    return Catalog(
        url=dataset.url,
        shards=shards,
        shard_urls=[dataset.shard_url(shard.name) for shard in shards],
        first=first,
        offsets=np.ascontiguousarray(offsets),
        sizes=np.ascontiguousarray(sizes),
        frames=columns["frames"][order].astype(np.int32),
        annotated=None if annotated is None else annotated[order],
        checksums=np.ascontiguousarray(columns["checksum"][order]),
        left_out=left_out,
        fingerprint=digest.hexdigest(),
        sidecars=Sidecars(root=dataset.url) if dataset.layout is None else find_sidecars(dataset.layout),
        _keys=keys.take(pa.array(order)),
    )


def _check_places(
    dataset: Dataset, places: NDArray[np.int64], offsets: NDArray[np.int64], sizes: NDArray[np.int64]
) -> None:
    lengths = np.array([shard.num_bytes for shard in dataset.shards], np.int64)
    wrong = (offsets < 0) | (sizes <= 0) | (offsets + sizes > lengths[places])
    wrong[1:] |= (places[1:] == places[:-1]) & (offsets[1:] < offsets[:-1] + sizes[:-1])
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        name = dataset.shards[places[at]].name
        raise BadReceipt(
            f"{redact(dataset.url)}: {name}: the receipt has a sample of {sizes[at]} bytes at byte {offsets[at]}, "
            "which leaves the shard or overlaps another one; delete the receipt and mine its unit again"
        )
