"""Which rows of a data set a person wants to see, a page at a time, however many rows there are.

Receipts and manifests are scanned block by block, and only the columns that the filters look at. Of a block that was
scanned one number is kept, how many of its rows match; the rows of a page are read again when the page is shown. So
memory does not grow with the data set, and the first page is there before the rest was looked at.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from trackmill.pipeline.shards.receipts import ROW_SCHEMA
from trackmill.pipeline.shards.rows import Rows
from trackmill.pipeline.shards.rows import objects as row_objects
from trackmill.schemas.config import Settings
from trackmill.schemas.receipt import ReceiptRow

MAX_PAGE = 200
_COUNT = 1 << 62
_SCAN_S = 1.5
"""How long a request scans before it answers with what it has found; the next one goes on."""


class Filters(Settings):
    """What a row must be; the defaults let every stored sample pass."""

    status: Literal["ok", "quarantined", "skipped"] = "ok"
    source: str = Field("", max_length=80)
    kind: Literal["", "picture", "clip"] = ""
    reason: str = Field("", max_length=200, description="Error class of a quarantined item.")
    text: str = Field("", max_length=400, description="Part of the key or the URI, in any case.")
    negatives: Literal["", "with", "without"] = ""
    min_objects: int = Field(0, ge=0, le=_COUNT)
    max_objects: int = Field(_COUNT, ge=0, le=_COUNT)
    min_proposals: int = Field(0, ge=0, le=_COUNT)
    max_proposals: int = Field(_COUNT, ge=0, le=_COUNT)
    min_mean_score: float | None = Field(None, description="Of its proposals; who has none is left out.")
    max_mean_score: float | None = None

    def columns(self) -> list[str]:
        """Columns that decide; empty where every row of the status passes."""
        wanted = {
            "key": self.source or self.text,
            "uri": self.text,
            "frames": self.kind,
            "error_class": self.reason,
            "negatives": self.negatives,
            "objects": self.min_objects > 0 or self.max_objects < _COUNT,
            "proposals": self.min_proposals > 0 or self.max_proposals < _COUNT,
            "mean_score": self.min_mean_score is not None or self.max_mean_score is not None,
            "status": self.status != "ok",
        }
        return [name for name, decides in wanted.items() if decides]

    def mask(self, table: pa.Table) -> pa.ChunkedArray | None:
        """Which rows pass, of a table that has `columns()` at least; None for all."""
        parts = []
        if self.status != "ok":
            parts.append(pc.equal(table["status"], self.status))
        if self.source:
            parts.append(pc.starts_with(table["key"], f"{self.source}-"))
        if self.kind:
            is_clip = pc.greater(table["frames"], 1)
            parts.append(is_clip if self.kind == "clip" else pc.invert(is_clip))
        if self.reason:
            parts.append(pc.equal(table["error_class"], self.reason))
        if self.text:
            found = [pc.match_substring(table[name], self.text, ignore_case=True) for name in ("key", "uri")]
            parts.append(pc.or_(*found))
        if self.negatives:
            has = pc.greater(table["negatives"], 0)
            parts.append(has if self.negatives == "with" else pc.invert(has))
        for name in ("objects", "proposals"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if least > 0:
                parts.append(pc.greater_equal(table[name], least))
            if most < _COUNT:
                parts.append(pc.less_equal(table[name], most))
        if self.min_mean_score is not None or self.max_mean_score is not None:
            parts.append(pc.not_equal(table["mean_score"], 0.0))  # no proposals, or an older version wrote the receipt
        if self.min_mean_score is not None:
            parts.append(pc.greater_equal(table["mean_score"], self.min_mean_score))
        if self.max_mean_score is not None:
            parts.append(pc.less_equal(table["mean_score"], self.max_mean_score))
        if not parts:
            return None
        mask = parts[0]
        for part in parts[1:]:
            mask = pc.and_(mask, part)
        return mask


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the rows that match.

    Args:
        rows: each with its number among the rows that were searched.
        found: matches so far; all of them where `complete`.
        complete: every block was scanned.
        scanned: share of the blocks, 0..1.
    """

    rows: list[tuple[int, ReceiptRow]]
    found: int
    complete: bool
    scanned: float


class Matches:
    """The rows that pass some filters. Not safe for threads: whoever calls holds a lock.

    Args:
        rows: to search; where the status is `ok`, stored ones.
        filters: what must hold.
    """

    def __init__(self, rows: Rows, filters: Filters) -> None:
        self._rows, self._filters = rows, filters
        self._ends: list[int] = []
        """Matches up to the end of each block that was scanned."""
        if not filters.columns():
            self._ends = [rows.first_of(number + 1) for number in range(rows.num_blocks)]

    def page(self, begin: int, count: int, scan_s: float = _SCAN_S) -> Page:
        """Matches `begin` to `begin + count`; fewer where no more were found in time, see `Page.complete`.

        Args:
            begin: 0 for the first.
            count: at most `MAX_PAGE`.
            scan_s: after so many seconds no further block is scanned; one block always is.

        Raises:
            BadReceipt: a receipt is damaged, or changed since the data set was opened.
            OSError: one is gone, or storage failed for good.
        """
        count = min(count, MAX_PAGE)
        # One more than is shown: so it is known whether there is a next page.
        self._scan(begin + count + 1, scan_s)
        rows: list[tuple[int, ReceiptRow]] = []
        block = bisect_right(self._ends, begin)
        while len(rows) < count and block < len(self._ends):
            before = self._ends[block - 1] if block else 0
            skipped = max(0, begin - before)
            if self._ends[block] > before + skipped:
                rows += self._of_block(block, skipped, count - len(rows))
            block += 1
        num_blocks = self._rows.num_blocks
        return Page(
            rows,
            found=self._ends[-1] if self._ends else 0,
            complete=len(self._ends) == num_blocks,
            scanned=len(self._ends) / num_blocks if num_blocks else 1.0,
        )

    def _scan(self, wanted: int, scan_s: float) -> None:
        found = self._ends[-1] if self._ends else 0
        if found >= wanted or len(self._ends) == self._rows.num_blocks:
            return
        deadline = time.monotonic() + scan_s
        schema = pa.schema([ROW_SCHEMA.field(name) for name in self._filters.columns()])
        tables = self._rows.tables(schema, first=len(self._ends))
        try:
            for table in tables:
                mask = self._filters.mask(table)
                found += len(table) if mask is None else pc.sum(mask).as_py() or 0
                self._ends.append(found)
                if found >= wanted or time.monotonic() >= deadline:
                    break
        finally:
            tables.close()  # what is read ahead is given up

    def _of_block(self, block: int, skipped: int, count: int) -> list[tuple[int, ReceiptRow]]:
        table = self._rows.block(block)
        mask = self._filters.mask(table)
        places = pa.array(range(len(table)), pa.int64()) if mask is None else pc.indices_nonzero(mask)
        places = places.slice(skipped, count)
        first = self._rows.first_of(block)
        numbers = [first + place for place in places.to_pylist()]
        return list(zip(numbers, row_objects(table.take(places))))
