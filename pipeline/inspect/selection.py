"""Which samples to look at when all are too many: evenly spread, every source covered, the same ones every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trackmill.pipeline.shards.receipt_stream import in_batches
from trackmill.pipeline.shards.rows import Rows
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.shards.totals import sources_of
from trackmill.schemas.receipt import ReceiptRow


class Unreadable:
    """Shards that could not be read while a data set was looked at, each with its reason.

    One of them keeps nobody from looking at the others; where nothing can be read, its error is raised.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._first: Exception | None = None

    def add(self, shard: str, error: BadShard | OSError) -> None:
        """Note what is wrong with a shard; what was noted first stays."""
        self._first = self._first or error
        said = "the file is missing" if isinstance(error, FileNotFoundError) else str(error)
        self.reasons.setdefault(shard, said)

    def raise_if_nothing(self, num_read: int) -> None:
        """Raise the first error where no sample was read."""
        if self._first is not None and not num_read:
            raise self._first

    def lines(self) -> list[str]:
        """A line for each shard."""
        return [
            f"{said if said.startswith(shard) else f'{shard}: {said}'}; samples of it are left out"
            for shard, said in self.reasons.items()
        ]


def source_of(key: str) -> str:
    """Name of the source, with which every sample key begins."""
    return key.partition("-")[0]


def select_rows(rows: Sequence[ReceiptRow], count: int) -> list[ReceiptRow]:
    """At most `count` rows in their given order: each source has its share, and one row at least while there is room.

    Args:
        rows: of stored samples.
        count: how many to choose.
    """
    if len(rows) <= count:
        return list(rows)
    names, codes = _sources(rows)
    sizes = dict(zip(names, np.bincount(codes, minlength=len(names)).tolist()))
    chosen: list[int] = []
    for name, share in _shares(sizes, count).items():
        members = np.flatnonzero(codes == names.index(name))
        chosen += members[_evenly(len(members), share)].tolist()
    return rows.take(sorted(chosen)) if isinstance(rows, Rows) else [rows[number] for number in sorted(chosen)]


def _sources(rows: Sequence[ReceiptRow]) -> tuple[list[str], NDArray[np.int32]]:
    """Names of the sources in the order in which they occur, and the number of the source of each row."""
    names: dict[str, int] = {}
    if not isinstance(rows, Rows):
        codes = [names.setdefault(source_of(row.key), len(names)) for row in rows]
        return list(names), np.array(codes, np.int32)
    parts = []
    for table in in_batches(rows.tables(pa.schema([("key", pa.string())]))):
        found = sources_of(table["key"]).combine_chunks().dictionary_encode()
        known = np.array([names.setdefault(name, len(names)) for name in found.dictionary.to_pylist()], np.int32)
        parts.append(known[found.indices.to_numpy()])
    return list(names), np.concatenate(parts)


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` of the numbers 0 .. length - 1, the first and the last among them."""
    if length <= count:
        return list(range(length))
    return sorted({round(i * (length - 1) / max(1, count - 1)) for i in range(count)})


def _shares(sizes: dict[str, int], count: int) -> Counter[str]:
    total = sum(sizes.values())
    largest_first = sorted(sizes, key=lambda name: (-sizes[name], name))
    shares = Counter(dict.fromkeys(largest_first[:count], 1))
    while sum(shares.values()) < count:  # to the source that is furthest below its share of the data set
        open_groups = [name for name in shares if shares[name] < sizes[name]]
        neediest = max(open_groups, key=lambda name: sizes[name] / total * count - shares[name])
        shares[neediest] += 1
    return shares


def _evenly(length: int, count: int) -> list[int]:
    # The middles of `count` equal parts: never the same sample twice, and no bias to the ends.
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]
