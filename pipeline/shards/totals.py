"""What a data set amounts to: counts by status, reason, source and licence, summed up from tables of rows.

Totals of parts add up to those of the whole, so nothing but the part at hand is ever in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trackmill.pipeline.shards.receipt_stream import UnitRows
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

COUNTS = ("frames", "objects", "proposals", "negatives", "refused")
"""Columns of receipts that are summed up."""

COUNTERS = ("statuses", "reasons", "counts", "stored", "sources", "licenses", "pictures", "clips")
"""Of `Totals`: those of two parts are added name by name."""

EXAMPLES = 200
"""Quarantined rows that are kept, the first ones."""

_ROWS_AT_ONCE = 1 << 15


@dataclass
class Totals:
    """Sums over the rows and shards of a data set, or of a part of it.

    Args:
        units: receipts that were added.
        items: rows.
        statuses: rows by status.
        reasons: quarantined rows by error class, as receipts have it (it may be empty).
        examples: the first quarantined rows, at most `EXAMPLES`.
        counts: sums of the columns `COUNTS` over all rows.
        stored: the same over rows that are `ok`.
        sources, licenses: rows that are `ok`, by source and by licence.
        pictures, clips: how many of each lie in each shard that has any.
        longest_clip: frames of the longest.
        shards, num_bytes: of the receipts.
        fingerprint: of the first receipt.
    """

    units: int = 0
    items: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[ReceiptRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    stored: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)
    clips: Counter[str] = field(default_factory=Counter)
    longest_clip: int = 0
    shards: int = 0
    num_bytes: int = 0
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0

    def add(self, receipt: UnitRows) -> None:
        """Add a receipt that has all columns; `settle` adds up what was added last."""
        self.units += 1
        self.fingerprint = self.fingerprint or receipt.fingerprint
        self.add_shards(receipt.shards)
        self._waiting.append(receipt.table)
        self._num_waiting += len(receipt.table)
        if self._num_waiting >= _ROWS_AT_ONCE:
            self.settle()

    def settle(self) -> Totals:
        """Count the rows of receipts that were added and not counted yet: those of many are counted at once."""
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._waiting, self._num_waiting = [], 0
            self.add_rows(table)
        return self

    def add_shards(self, shards: Sequence[ShardInfo]) -> None:
        """Add shards without rows."""
        self.shards += len(shards)
        self.num_bytes += sum(shard.num_bytes for shard in shards)

    def add_rows(self, table: pa.Table) -> None:
        """Add rows that have all columns, without shards."""
        stored = table.filter(pc.equal(table["status"], "ok"))
        bad = table.filter(pc.equal(table["status"], "quarantined"))
        self.items += len(table)
        self.statuses.update(counted(table["status"]))
        self.reasons.update(counted(bad["error_class"]))
        self.examples += [ReceiptRow(**row) for row in bad.slice(0, EXAMPLES - len(self.examples)).to_pylist()]
        for name in COUNTS:
            self.counts[name] += exact_sum(table[name])
            self.stored[name] += exact_sum(stored[name])
        self.sources.update(counted(sources_of(stored["key"])))
        self.licenses.update(counted(stored["license"]))
        clips = pa.array(is_clip(stored))
        self.pictures.update(counted(stored["shard"].filter(pc.invert(clips))))
        self.clips.update(counted(stored["shard"].filter(clips)))
        self.longest_clip = max(self.longest_clip, pc.max(stored["frames"].filter(clips)).as_py() or 0)

    def merge(self, other: Totals) -> Totals:
        """The totals of what was added here, followed by what was added to `other`."""
        self.settle()
        other.settle()
        sums = Totals(
            units=self.units + other.units,
            items=self.items + other.items,
            examples=[*self.examples, *other.examples][:EXAMPLES],
            longest_clip=max(self.longest_clip, other.longest_clip),
            shards=self.shards + other.shards,
            num_bytes=self.num_bytes + other.num_bytes,
            fingerprint=self.fingerprint or other.fingerprint,
        )
        for name in COUNTERS:
            counter = Counter(getattr(self, name))
            counter.update(getattr(other, name))  # `+` would drop what is 0 or less
            setattr(sums, name, counter)
        return sums


def totals_of(receipts: Iterable[UnitRows]) -> Totals:
    """The totals of receipts that have all columns."""
    totals = Totals()
    for receipt in receipts:
        totals.add(receipt)
    return totals.settle()


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, in the order in which they occur first."""
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}


def sources_of(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """The name of the source, with which every key begins."""
    return pc.replace_substring_regex(keys, "(?s)-.*", "")


def is_clip(rows: pa.Table) -> NDArray[np.bool_]:
    """(N,) which rows are clips: their identity ends with a number in the video, or they have several frames."""
    named = pc.match_substring_regex(rows["source_id"], r"#c[0-9]{3,}$").to_numpy(zero_copy_only=False)
    found: NDArray[np.bool_] = named.astype(np.bool_) | (rows["frames"].to_numpy() > 1)
    return found


def exact_sum(column: pa.ChunkedArray) -> int:
    """The sum of whole numbers, however large it is."""
    least, most = pc.min_max(column).as_py().values()
    if least is None:
        return 0
    if max(-least, most) * len(column) < 1 << 63:
        return int(pc.sum(column).as_py())
    return sum(column.to_pylist())  # Arrow's sum would start anew at 2**63
