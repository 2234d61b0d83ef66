"""One part as a piece of work: what a worker is given, what it does, and what it answers.

A part is the unit, its samples are the items: one that makes its worker hang, or kills two, is quarantined alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from trackmill.pipeline.sidecars.about import SidecarJob
from trackmill.pipeline.workers.task import UnitTask
from trackmill.pipeline.workers.work_times import WorkTimes
from trackmill.schemas.keys import shard_numbers, sidecar_part_name
from trackmill.schemas.media import WorkItem
from trackmill.schemas.receipt import ReceiptRow, ShardInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """A part to be made: its unit, its retry and the shards that it describes."""

    unit: int
    retry: int
    shards: tuple[ShardInfo, ...]

    @property
    def file_name(self) -> str:
        """Of the part."""
        return sidecar_part_name(self.unit, self.retry)

    @property
    def claim(self) -> str:
        """What its claim is called, see `trackmill.pipeline.storage.claims`."""
        return self.file_name.removesuffix(".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartUnit(UnitTask):
    """A part for a pool of workers. Its items are the samples, in order: `uri` is the shard, with their byte range.

    Args:
        part: what is to be made; `unit` is its place among all parts, since a retry has its unit's number.
    """

    doing: ClassVar[str] = "making its rows"

    part: PartTask

    @property
    def title(self) -> str:
        """See `UnitTask.title`."""
        return self.part.file_name

    @property
    def frames(self) -> int:
        """Of all its samples."""
        return sum(item.frames for item in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """What became of a part.

    Args:
        file_name: of the part.
        unit: see `PartUnit`.
        samples, rows, num_bytes: what it holds.
        frames: of its samples.
        quarantined: (key, error class, reason) of the first samples that have no rows.
        num_quarantined: how many there are.
        counts: what the producer counted, see `trackmill.pipeline.sidecars.producer.CountedRows`.
        failed: why the part could not be made; empty when all is well.
        times: see `trackmill.pipeline.mining.unit.UnitResult`.
    """

    file_name: str
    unit: int = -1
    samples: int = 0
    rows: int = 0
    num_bytes: int = 0
    frames: int = 0
    quarantined: list[tuple[str, str, str]] = field(default_factory=list)
    num_quarantined: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    failed: str = ""
    times: WorkTimes = field(default_factory=WorkTimes)


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarWork:
    """What workers need to know.

    Args:
        root: root URL of the data set.
        dataset: its fingerprint.
        job: the sidecar.
        environment: storage credentials and settings of the driver's environment.
        item_timeout_s: see `trackmill.pipeline.sidecars.settings.SidecarRunSettings`.
        threads: that the libraries of a worker may use; 0: as they like.
    """

    root: str
    dataset: str
    job: SidecarJob
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    item_timeout_s: float = 0.0
    threads: int = 0


def part_units(tasks: Mapping[int, PartTask], rows: Sequence[ReceiptRow]) -> Iterator[PartUnit]:
    """Parts as units for a pool.

    Args:
        tasks: the parts that are to be made, by their place among the parts of the sidecar.
        rows: of all stored samples, see `trackmill.pipeline.shards.reader.Dataset.stored`.
    """
    names = {shard.name for task in tasks.values() for shard in task.shards}
    by_shard: dict[str, list[ReceiptRow]] = {}
    for row in rows:
        if row.shard in names:
            by_shard.setdefault(row.shard, []).append(row)
    for place, task in tasks.items():
        shards = sorted(task.shards, key=lambda shard: shard_numbers(shard.name))
        own = [row for shard in shards for row in sorted(by_shard.get(shard.name, ()), key=lambda row: row.offset)]
        items = [
            WorkItem(
                source="shards",
                source_id=row.key,
                key=row.key,
                uri=row.shard,
                offset=row.offset,
                length=row.size,
                frames=row.frames,
            )
            for row in own
        ]
        yield PartUnit(unit=place, items=items, positions=list(range(len(items))), retry=task.retry, part=task)
