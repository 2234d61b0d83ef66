"""The audit of a data set's negatives: shard by shard, one sample in memory at a time."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from trackmill.pipeline.audit.measure import measure
from trackmill.pipeline.audit.rows import NegativeRows, NoPart
from trackmill.pipeline.audit.settings import AuditSettings
from trackmill.pipeline.audit.shortlist import KINDS, Candidate, Shortlist, candidates_of, place_of
from trackmill.pipeline.audit.totals import Totals
from trackmill.pipeline.inspect.selection import Unreadable, select_rows
from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.shards.records import iter_records
from trackmill.pipeline.shards.tar import BadShard
from trackmill.schemas.receipt import ReceiptRow, ShardInfo
from trackmill.schemas.sample import SampleRecord

_MOST_NAMED = 20


@dataclass
class Audit:
    """What an audit found.

    Args:
        name, note: whose negatives they are.
        totals: all counts.
        samples_stored: of the data set; `totals.samples` were looked at.
        max_iou: see `trackmill.pipeline.audit.rows.NegativeRows`.
        dropped: detections that did not become negatives, by reason, of the parts that were read.
        shown: the candidates of each kind, see `trackmill.pipeline.audit.shortlist.KINDS`.
        without_rows: samples whose part is missing or damaged.
        quarantined: some samples on which the detector failed, each with the reason.
    """

    name: str
    note: str
    totals: Totals
    samples_stored: int
    max_iou: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[Candidate]] = field(default_factory=dict)
    without_rows: int = 0
    quarantined: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "negatives": self.name,
            "note": self.note,
            "samples_stored": self.samples_stored,
            "samples_without_rows": self.without_rows,
            **self.totals.as_dict(),
            "dropped": dict(self.dropped),
            "quarantined_samples": self.quarantined,
            "shown": {kind: [dataclasses.asdict(each) for each in found] for kind, found in self.shown.items()},
        }


def audit_negatives(
    dataset: Dataset,
    negatives: NegativeRows,
    settings: AuditSettings,
    *,
    max_samples: int | None = None,
    show: int = 24,
    progress: Callable[[int], None] | None = None,
    unreadable: Unreadable | None = None,
) -> Audit:
    """Look at all negatives of a data set, or at those of some of its samples.

    Args:
        dataset: opened for inspection.
        negatives: see `trackmill.pipeline.audit.rows.find_negatives`.
        settings: see `AuditSettings`.
        max_samples: look at only so many, the same ones every time; None looks at all.
        show: candidates of each kind.
        progress: called with 1 after each sample.
        unreadable: receives shards and parts that are missing or damaged; the others are counted.

    Raises:
        NoPart, BadShard, OSError: nothing at all could be read.
    """
    unreadable = unreadable if unreadable is not None else Unreadable()
    audit = Audit(negatives.name, negatives.note, Totals(settings), len(dataset.stored), negatives.max_iou)
    lists = {kind: Shortlist(kind, show, settings) for kind in KINDS}
    for shard, rows in _shards(dataset, max_samples):
        try:
            negatives.begin_shard(shard)
        except NoPart as error:
            unreadable.add(str(error).partition(":")[0], BadShard(str(error)))
            audit.without_rows += len(rows)
            continue
        except OSError as error:
            unreadable.add(f"rows about {shard.name}", error)
            continue
        for _, record in iter_records(dataset, rows):
            if isinstance(record, SampleRecord):
                try:
                    _look(audit, lists, record, negatives, settings)
                except NoPart as error:
                    unreadable.add(str(error).partition(":")[0], BadShard(str(error)))
            else:
                unreadable.add(shard.name, record)
                if isinstance(record, OSError):
                    break  # the others of this shard would fail as well, after as many attempts
            if progress:
                progress(1)
    unreadable.raise_if_nothing(audit.totals.samples + audit.totals.quarantined)
    audit.dropped = negatives.dropped
    taken: set[tuple[str, int, int]] = set()
    for kind, shortlist in lists.items():
        audit.shown[kind] = shortlist.chosen(frozenset(taken))
        taken.update(map(place_of, audit.shown[kind]))
    return audit


def _look(
    audit: Audit, lists: dict[str, Shortlist], sample: SampleRecord, negatives: NegativeRows, settings: AuditSettings
) -> None:
    own = negatives.of_sample(sample)
    if own is None:
        audit.totals.quarantined += 1
        if len(audit.quarantined) < _MOST_NAMED:
            audit.quarantined.append(f"{sample.key}: {negatives.quarantined[sample.key]}")
        return
    frames, chains = measure(sample, own, settings)
    audit.totals.add(frames, chains)
    candidates = candidates_of(sample.key, frames, chains)
    for shortlist in lists.values():
        shortlist.offer(candidates)


def _shards(dataset: Dataset, max_samples: int | None) -> Iterator[tuple[ShardInfo, list[ReceiptRow]]]:
    """The shards in order, each with the rows of those of its samples that are looked at."""
    if max_samples is None:
        for shard in dataset.shards:
            if rows := list(dataset.rows_of(shard.name)):
                yield shard, rows
        return
    chosen = select_rows(dataset.stored, max_samples)
    by_shard: dict[str, list[ReceiptRow]] = {}
    for row in chosen:
        by_shard.setdefault(row.shard, []).append(row)
    for shard in dataset.shards:
        if shard.name in by_shard:
            yield shard, by_shard[shard.name]
