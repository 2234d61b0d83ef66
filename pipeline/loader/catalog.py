"""The samples of a data set and their places in the shards, as NumPy columns of 29 bytes a sample.

Receipts or manifest are read a few at a time. Keys, which take more than all else, are looked up when one is asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trackmill.pipeline.loader.keys import Keys, keys_in_manifest, keys_in_receipt
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset, manifest_shards, manifest_tables, open_dataset
from trackmill.pipeline.shards.receipt_stream import in_batches, stream_receipts
from trackmill.pipeline.shards.receipts import BadReceipt, listed_receipts
from trackmill.pipeline.shards.stream import index_shard
from trackmill.pipeline.sidecars.about import Sidecars, find_sidecars
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.urls import canonical
from trackmill.schemas.errors import InputError
from trackmill.schemas.receipt import ShardInfo

_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("status", "shard")),
        *((name, pa.int64()) for name in ("offset", "size", "frames", "objects", "proposals", "checksum")),
    ]
)
_THREADS = 16
_ROWS_CHECKED = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Catalog:
    """The samples of a data set, shard by shard in the order of the files; pickled without the way to its keys.

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
    _keys: Keys | None

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
        """Key of a sample; its shard and offset in a worker process, and where what has the key cannot be read now."""
        shard, offset = self.shards[int(self.shard_of(sample))], int(self.offsets[sample])
        key = self._keys.find(shard, offset) if self._keys is not None else None
        return f"{shard.name} at byte {offset}" if key is None else key

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
        )

    def __getstate__(self) -> dict[str, object]:
        # Keys only name bad samples, which the training process does.
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
    places = _Places(needs_boxes)
    if url.endswith(".tar") or not (sizes := listed_receipts(layout)):
        if url.endswith(".tar") or not exists(layout.manifest):
            return _read_tars(open_dataset(url))
        shards = manifest_shards(layout)
        for table in manifest_tables(layout, _COLUMNS):
            places.add(table)
        return _catalog(url, layout, shards, places, Keys(lambda shard: keys_in_manifest(layout, shard.name)))
    shards, unit_of = [], {}

    def tables() -> Iterator[pa.Table]:
        for receipt in stream_receipts(layout, sizes, _COLUMNS):
            for shard in receipt.shards:
                shards.append(shard)
                unit_of[shard.name] = receipt.unit
            yield receipt.table

    for table in in_batches(tables()):
        places.add(table)
    keys = Keys(lambda shard: keys_in_receipt(layout, unit_of[shard.name], shard.name))
    return _catalog(url, layout, shards, places, keys)


class _Places:
    """Where samples lie, collected table by table.

    Args:
        needs_boxes: whether samples without a box are left out.
    """

    def __init__(self, needs_boxes: bool) -> None:
        self._needs_boxes = needs_boxes
        self._columns: dict[str, NDArray[Any]] = {name: np.empty(0, kind) for name, kind in _KINDS.items()}
        self._count = 0
        self.shards: dict[str, int] = {}
        """By the name of a shard: its number in the column `shard`."""
        self.left_out = 0

    def add(self, rows: pa.Table) -> None:
        """Add the samples among some rows."""
        stored = rows.filter(pc.equal(rows["status"], "ok"))
        kept = stored
        if self._needs_boxes:
            kept = stored.filter(pc.greater(pc.add(stored["objects"], stored["proposals"]), 0))
        self.left_out += len(stored) - len(kept)
        names = kept["shard"].combine_chunks().dictionary_encode()
        codes = [self.shards.setdefault(name, len(self.shards)) for name in names.dictionary.to_pylist()]
        found = {name: kept[name].to_numpy() for name in ("offset", "size", "frames", "checksum")}
        found |= {"annotated": kept["objects"].to_numpy() > 0}
        found |= {"shard": np.array(codes, np.int32)[names.indices.to_numpy()]}
        self.add_columns(found)

    def add_columns(self, columns: dict[str, NDArray[Any]]) -> None:
        """Add samples by their columns."""
        end = self._count + len(columns["shard"])
        for name, values in columns.items():
            column = self._columns[name]
            if end > len(column):
                # In place: parts that are joined in the end would be in memory twice.
                column.resize(max(end, len(column) * 5 // 4), refcheck=False)
            column[self._count : end] = values
        self._count = end

    def take(self, name: str) -> NDArray[Any]:
        """A column, which is forgotten here."""
        column = self._columns.pop(name)
        column.resize(self._count, refcheck=False)
        return column


_KINDS: dict[str, Any] = {
    "shard": np.int32,
    "offset": np.int64,
    "size": np.int64,
    "frames": np.int32,
    "checksum": np.int64,
    "annotated": np.bool_,
}


def _ranks(numbers: dict[str, int], shards: Sequence[ShardInfo], url: str) -> NDArray[np.int32]:
    """By the number of a shard in `_Places`: its place in the sequence of shards."""
    first: dict[str, int] = {}
    for place, shard in enumerate(shards):
        first.setdefault(shard.name, place)
    for name in numbers:
        if name not in first:
            raise BadReceipt(
                f"{redact(url)}: a row names the shard {name!r}, which no receipt lists; mine its unit again"
            )
    return np.array([first[name] for name in numbers], np.int32)


def _read_tars(dataset: Dataset) -> Catalog:
    def index(shard: ShardInfo) -> list[tuple[str, int, int, int]]:
        return index_shard(dataset.shard_url(shard.name), shard.num_bytes, shard.name)

    def columns(shard: ShardInfo) -> NDArray[np.int64]:
        return np.array([entry[1:] for entry in index(shard)], np.int64).reshape(-1, 3)

    places = _Places(needs_boxes=False)
    with ThreadPoolExecutor(_THREADS) as pool:
        for number, (shard, found) in enumerate(zip(dataset.shards, pool.map(columns, dataset.shards))):
            places.shards[shard.name] = number
            zeros = np.zeros(len(found), np.int64)
            own = {name: found[:, i] for i, name in enumerate(("offset", "size", "frames"))}
            places.add_columns({**own, "shard": zeros + number, "checksum": zeros, "annotated": zeros})
    keys = Keys(lambda shard: {offset: key for key, offset, _, _ in index(shard)})
    return _catalog(dataset.url, dataset.layout, dataset.shards, places, keys, annotated=False)


def _catalog(
    url: str, layout: Layout | None, shards: list[ShardInfo], found: _Places, keys: Keys, annotated: bool = True
) -> Catalog:
    numbers = found.take("shard")
    if not len(numbers):
        why = f"all {found.left_out} samples are without a single box" if found.left_out else "nothing was stored"
        raise InputError(f"{redact(url)}: no sample to train on: {why}; mine again, or from other media")
    # Sorted by name, since receipts and listings order the shards of one unit differently.
    by_name = sorted(range(len(shards)), key=lambda i: shards[i].name)
    rank_of = np.argsort(np.array(by_name)).astype(np.int32)
    places = rank_of[_ranks(found.shards, shards, url)][numbers]
    del numbers
    shards = [shards[i] for i in by_name]
    offsets = found.take("offset")
    order: Any = slice(None)
    same = places[1:] == places[:-1]
    if not np.all((places[1:] > places[:-1]) | (same & (offsets[1:] >= offsets[:-1]))):
        order = np.lexsort((offsets, places))
        places, offsets = places[order], offsets[order]
    sizes = found.take("size")[order]
    _check_places(url, shards, places, offsets, sizes)
    counts = np.bincount(places, minlength=len(shards))
    del places
    used = np.flatnonzero(counts)
    shards = [shards[i] for i in used]
    first = np.concatenate([[0], np.cumsum(counts[used])]).astype(np.int64)
    names = [(shard.name, shard.num_bytes, shard.sha256) for shard in shards]
    digest = hashlib.sha256(orjson.dumps(names))
    for column in (first, offsets, sizes):
        digest.update(np.ascontiguousarray(column, "<i8").data)
    dataset = Dataset(url, layout, [], shards, None)
    return Catalog(
        url=url,
        shards=shards,
        shard_urls=[dataset.shard_url(shard.name) for shard in shards],
        first=first,
        offsets=offsets,
        sizes=sizes,
        frames=found.take("frames")[order],
        annotated=found.take("annotated")[order] if annotated else None,
        checksums=found.take("checksum")[order],
        left_out=found.left_out,
        fingerprint=digest.hexdigest(),
        sidecars=Sidecars(root=url) if layout is None else find_sidecars(layout),
        _keys=keys,
    )


def _check_places(
    url: str,
    shards: list[ShardInfo],
    places: NDArray[np.int32],
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> None:
    lengths = np.array([shard.num_bytes for shard in shards], np.int64)
    for begin in range(0, len(places), _ROWS_CHECKED):
        # With the last sample of the part before: the two may overlap.
        part = slice(max(0, begin - 1), begin + _ROWS_CHECKED)
        place, offset, size = places[part], offsets[part], sizes[part]
        wrong = (offset < 0) | (size <= 0) | (offset + size > lengths[place])
        wrong[1:] |= (place[1:] == place[:-1]) & (offset[1:] < offset[:-1] + size[:-1])
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise BadReceipt(
                f"{redact(url)}: {shards[place[at]].name}: the receipt has a sample of {size[at]} bytes at byte "
                f"{offset[at]}, which leaves the shard or overlaps another one; delete the receipt and mine its unit "
                "again"
            )
