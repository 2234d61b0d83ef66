"""Which parts a sidecar of these shards has, and which of them are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.sidecars.about import SidecarError, find_sidecars
from trackmill.pipeline.sidecars.part import BadPart, PartAbout, read_part_about
from trackmill.pipeline.sidecars.part_work import PartTask
from trackmill.pipeline.sidecars.tables import OtherShards, check_maker, check_shard
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import shard_numbers
from trackmill.schemas.receipt import ShardInfo

_THREADS = 16


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
