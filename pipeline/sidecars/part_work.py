"""One part as a piece of work: what a worker is given, what it does, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from trackmill.pipeline.shards.decode import parse_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.stream import ShardBytes, raw_samples
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.sidecars.about import SidecarJob
from trackmill.pipeline.sidecars.making import Maker, publish_part
from trackmill.pipeline.sidecars.part import PartRows
from trackmill.schemas.keys import sidecar_part_name
from trackmill.schemas.receipt import ShardInfo


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """What became of a part.

    Args:
        file_name: of the part.
        samples, rows, num_bytes: what it holds.
        quarantined: (key, error class, reason) of the first samples that the producer failed on.
        num_quarantined: how many there are.
        counts: what the producer counted, see `trackmill.pipeline.sidecars.producer.CountedRows`.
        failed: why the part could not be made; empty when all is well.
    """

    file_name: str
    samples: int = 0
    rows: int = 0
    num_bytes: int = 0
    quarantined: list[tuple[str, str, str]] = field(default_factory=list)
    num_quarantined: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarWork:
    """What workers need to know.

    Args:
        root: root URL of the data set.
        dataset: its fingerprint.
        job: the sidecar.
        environment: storage credentials and settings of the driver's environment.
    """

    root: str
    dataset: str
    job: SidecarJob
    environment: dict[str, str] = field(default_factory=dict)


def make_part(layout: Layout, maker: Maker, dataset: str, task: PartTask) -> PartResult:
    """Make and publish one part, streaming over its shards.

    Returns:
        What became of it; `failed` where a shard is damaged, which is no reason to stop at the others.

    Raises:
        BadRows: the producer broke its contract.
        OSError: storage failed for good.
    """
    rows = PartRows(maker.columns)
    try:
        for shard in task.shards:
            source = ShardBytes(layout.shard(shard.name), shard.num_bytes)
            for raw in raw_samples(source, shard.name):
                sample = parse_sample(raw)
                rows.add(sample.key, maker.make(sample))
            if source.sha256() != shard.sha256:
                raise BadShard(f"{shard.name}: its SHA-256 is not that of its receipt")
    except (BadShard, FileNotFoundError) as error:
        advice = "jobs/inspect_shards.py --verify says what is wrong with the shards"
        return PartResult(file_name=task.file_name, failed=f"{error}; {advice}")
    num_bytes = publish_part(layout, maker.job, dataset, task.unit, task.retry, task.shards, rows)
    shown = [(entry.key, entry.error_class, entry.reason) for entry in rows.quarantined[:20]]
    return PartResult(
        file_name=task.file_name,
        samples=rows.samples,
        rows=rows.rows,
        num_bytes=num_bytes,
        quarantined=shown,
        num_quarantined=len(rows.quarantined),
        counts=dict(rows.counts),
    )
