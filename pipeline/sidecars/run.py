"""Making a sidecar for shards that lie there: unit by unit, in this process or on Ray, resumed where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from trackmill.pipeline.shards.decode import parse_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset, open_dataset
from trackmill.pipeline.shards.stream import ShardBytes, raw_samples
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.sidecars.about import SidecarError, SidecarJob, begin_sidecar, find_sidecars
from trackmill.pipeline.sidecars.making import Maker, publish_part
from trackmill.pipeline.sidecars.part import BadPart, PartAbout, PartRows, read_part_about
from trackmill.pipeline.sidecars.requests import request_sidecar
from trackmill.pipeline.sidecars.tables import OtherShards, check_maker, check_shard
from trackmill.pipeline.storage.credentials import redact, storage_environment
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import shard_numbers, sidecar_part_name
from trackmill.schemas.receipt import ShardInfo

_THREADS = 16


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
        failed: why the part could not be made; empty when all is well.
    """

    file_name: str
    samples: int = 0
    rows: int = 0
    num_bytes: int = 0
    quarantined: list[tuple[str, str, str]] = field(default_factory=list)
    num_quarantined: int = 0
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


@dataclass(slots=True, kw_only=True)
class SidecarOutcome:
    """What a run amounts to.

    Args:
        name, fingerprint: of the sidecar.
        parts: of the whole sidecar, once all are made.
        done_before: parts that were there already.
        made: results of this run, in the order in which they came.
    """

    name: str
    fingerprint: str
    parts: int
    done_before: int
    made: list[PartResult] = field(default_factory=list)

    @property
    def failed(self) -> list[PartResult]:
        """Parts that could not be made."""
        return [result for result in self.made if result.failed]


def make_sidecar(
    root: str,
    name: str,
    producer: str = "",
    settings: dict[str, Any] | None = None,
    *,
    executor: Literal["inline", "ray"] = "inline",
    workers: int = 0,
    only_quarantined: bool = False,
    on_start: Callable[[int, int], None] | None = None,
    on_part: Callable[[PartResult], None] | None = None,
) -> SidecarOutcome:
    """Make the parts of a sidecar that are missing. The same call again does nothing.

    Args:
        root: URL of the data set, which mining wrote.
        name: of the sidecar.
        producer: a name in `PRODUCERS` or `my_package.my_module:Class`; empty: it is called like the sidecar.
        settings: of the producer, as plain values.
        executor: `inline`: this process; `ray`: a pool of actors.
        workers: actors; 0: one per GPU where the producer gains from one, else one per CPU.
        only_quarantined: make only those parts again in which samples are quarantined.
        on_start: called with the parts to make and the samples in them, before the first is made.
        on_part: called after each part.

    Raises:
        FileNotFoundError, BadReceipt: there is no data set, or a receipt is damaged.
        InputError: an unknown producer or setting, or shards without receipts.
        SidecarError: begun with other settings, or a part that is there describes other shards; names it.
        BadRows: the producer broke its contract.
        OSError: storage failed for good. What is made stays made.
    """
    dataset = open_dataset(root)
    fingerprint = dataset_fingerprint(dataset)
    assert dataset.layout is not None
    layout = dataset.layout
    job = begin_sidecar(layout, request_sidecar(name, producer, settings or {}), fingerprint)
    tasks = part_tasks(dataset.shards)
    there = check_parts(layout, name, tasks)
    todo = [task for task in tasks if task.file_name not in there]
    if only_quarantined:
        todo = [task for task in tasks if task.file_name in there and there[task.file_name].quarantined]
    outcome = SidecarOutcome(name=name, fingerprint=job.fingerprint, parts=len(tasks), done_before=len(there))
    if on_start:
        on_start(len(todo), sum(max(0, shard.num_samples) for task in todo for shard in task.shards))
    if todo:
        work = SidecarWork(root=layout.root, dataset=fingerprint, job=job, environment=storage_environment())
        for result in _results(work, todo, executor, workers):
            outcome.made.append(result)
            if on_part:
                on_part(result)
    return outcome


def dataset_fingerprint(dataset: Dataset) -> str:
    """Fingerprint of a data set, as all its receipts have it.

    Raises:
        InputError: it has no receipts, or they do not agree.
    """
    found = {receipt.fingerprint for receipt in dataset.receipts}
    if len(found) == 1:
        return found.pop()
    if not found:
        raise InputError(
            f"{redact(dataset.url)}: no receipts here; sidecars describe the units of a data set that mining wrote"
        )
    raise InputError(
        f"{redact(dataset.url)}: receipts of several runs ({', '.join(sorted(found))}); "
        "jobs/inspect_shards.py --verify says which"
    )


def part_tasks(shards: Iterable[ShardInfo]) -> list[PartTask]:
    """The parts that a sidecar of these shards has: one for each unit, one more for each retry that saved samples.

    Raises:
        InputError: a shard that mining did not name.
    """
    try:
        ordered = sorted(shards, key=lambda shard: shard_numbers(shard.name))
    except ValueError as error:
        raise InputError(str(error)) from None
    groups = groupby(ordered, key=lambda shard: shard_numbers(shard.name)[:2])
    return [PartTask(unit=unit, retry=retry, shards=tuple(group)) for (unit, retry), group in groups]


def check_parts(layout: Layout, name: str, tasks: Sequence[PartTask]) -> dict[str, PartAbout]:
    """What the parts of a sidecar that are there say about themselves, by file name.

    Raises:
        OtherShards: one of them describes other shards; names it.
        SidecarError: one of them is damaged; names it.
        OSError: one of them could not be read.
    """
    sidecar = find_sidecars(layout)[name]

    def check(task: PartTask) -> tuple[str, PartAbout]:
        where = f"sidecars/{name}/{task.file_name}"
        try:
            about = read_part_about(layout.sidecar_part(name, task.file_name), where)
        except BadPart as error:
            raise SidecarError(str(error)) from None
        check_maker(about, sidecar, task.file_name, where)
        for shard in task.shards:
            check_shard(about, shard, where)
        if len(about.shards) != len(task.shards):
            raise OtherShards(f"{where}: describes shards that are no more; delete it and make it again")
        return task.file_name, about

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(pool.map(check, [task for task in tasks if task.file_name in sidecar.parts]))


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
    )


def _results(work: SidecarWork, tasks: list[PartTask], executor: str, workers: int) -> Iterator[PartResult]:
    if executor == "inline":
        layout, maker = Layout(work.root), Maker(work.job)
        for task in tasks:
            yield make_part(layout, maker, work.dataset, task)
        return
    from trackmill.pipeline.sidecars.pool import SidecarPool

    yield from SidecarPool(work, workers).run(tasks)
