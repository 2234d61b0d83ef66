"""Making a sidecar for shards that lie there: unit by unit, in this process or on Ray, resumed where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset, open_dataset
from trackmill.pipeline.sidecars.about import SidecarError, begin_sidecar, find_sidecars
from trackmill.pipeline.sidecars.making import Maker
from trackmill.pipeline.sidecars.part import BadPart, PartAbout, read_part_about
from trackmill.pipeline.sidecars.part_work import PartResult, PartTask, SidecarWork, make_part
from trackmill.pipeline.sidecars.requests import request_sidecar
from trackmill.pipeline.sidecars.tables import OtherShards, check_maker, check_shard
from trackmill.pipeline.storage.credentials import redact, storage_environment
from trackmill.pipeline.storage.output_lock import locked
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import shard_numbers
from trackmill.schemas.receipt import ShardInfo

_THREADS = 16


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
        OutputLocked: another process makes this sidecar.
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
        with locked(layout.sidecar(name), "sidecar") as lock:
            for result in _results(work, todo, executor, workers):
                outcome.made.append(result)
                if on_part:
                    on_part(result)
                lock.check()
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


def _results(work: SidecarWork, tasks: list[PartTask], executor: str, workers: int) -> Iterator[PartResult]:
    if executor == "inline":
        layout, maker = Layout(work.root), Maker(work.job)
        for task in tasks:
            yield make_part(layout, maker, work.dataset, task)
        return
    from trackmill.pipeline.sidecars.pool import SidecarPool

    yield from SidecarPool(work, workers).run(tasks)
