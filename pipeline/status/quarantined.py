"""Which items are quarantined, and why, from a sample of receipts: the newest, and others spread over the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.shards.receipts import RECEIPT_MEMORY_FLOOR, typed_table
from trackmill.pipeline.status.state import Quarantine, Reason
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData

SAMPLE = 200
"""Receipts that are read where there are more."""
TOP = 5
"""Error classes that are told."""
_EXAMPLES = 3
_THREADS = 16
_COLUMNS = pa.schema([(name, pa.string()) for name in ("source_id", "status", "error_class", "reason")])


def chosen(names: Sequence[str], limit: int = SAMPLE) -> list[str]:
    """Of receipts from the oldest to the newest, the newest half of `limit` and as many spread over the others."""
    if len(names) <= limit:
        return list(names)
    newest = limit // 2
    others = names[: len(names) - newest]
    step = len(others) / (limit - newest)
    return [*(others[int(place * step)] for place in range(limit - newest)), *names[len(names) - newest :]]


def look_at(urls: Sequence[str], of: int) -> Quarantine:
    """What receipts say of their items. Each is read, counted and let go.

    Args:
        urls: of the receipts, at most a few thousand a minute from an object store.
        of: how many there are.

    Raises:
        OSError: storage failed.
    """
    total = _Count()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="receipts") as pool:
        for begin in range(0, len(urls), 16 * _THREADS):  # so that no more than so many wait in memory
            for count in pool.map(_count, urls[begin : begin + 16 * _THREADS]):
                total.add(count)
    reasons = [
        Reason(error_class=name, count=count, examples=total.examples.get(name, [])[:_EXAMPLES])
        for name, count in total.reasons.most_common(TOP)
    ]
    return Quarantine(
        receipts=len(urls),
        of=of,
        items=sum(total.statuses.values()),
        statuses=dict(total.statuses),
        quarantined=total.statuses.get("quarantined", 0),
        reasons=reasons,
        damaged=total.damaged,
    )


@dataclass(slots=True)
class _Count:
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def add(self, other: _Count) -> None:
        self.statuses += other.statuses
        self.reasons += other.reasons
        self.damaged += other.damaged
        for name, examples in other.examples.items():
            own = self.examples.setdefault(name, [])
            own += examples[: max(0, _EXAMPLES - len(own))]


def _count(url: str) -> _Count:
    found = _Count()
    try:
        data = ParquetData(read_bytes(url, max_bytes=MAX_TABLE_FILE_BYTES), RECEIPT_MEMORY_FLOOR)
        table = typed_table(data, _COLUMNS)
    except ValueError as error:
        found.damaged.append(f"{redact(url)}: {error}")
        return found
    except FileNotFoundError:  # removed since it was listed
        return found
    for entry in pc.value_counts(table["status"]).to_pylist():
        found.statuses[entry["values"]] += entry["counts"]
    bad = table.filter(pc.equal(table["status"], "quarantined"))
    for entry in pc.value_counts(bad["error_class"]).to_pylist():
        name = entry["values"]
        found.reasons[name] += entry["counts"]
        rows = bad.filter(pc.equal(bad["error_class"], name)).slice(0, _EXAMPLES).to_pylist()
        found.examples[name] = [(row["source_id"], row["reason"]) for row in rows]
    return found
