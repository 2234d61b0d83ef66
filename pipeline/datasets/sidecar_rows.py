"""Sidecars come along: their rows about the samples that were kept, as parts beside the new shards."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from trackmill.pipeline.datasets.copying import Taken
from trackmill.pipeline.datasets.inputs import Source
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.sidecars.about import About, find_sidecars
from trackmill.pipeline.sidecars.files import publish_files, stored_files
from trackmill.pipeline.sidecars.part import PartAbout, PartRows, SidecarPart, part_bytes, read_part
from trackmill.pipeline.sidecars.parts import part_tasks
from trackmill.pipeline.sidecars.tables import check_maker, check_shard, part_of_shard
from trackmill.pipeline.storage.documents import publish_document
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.keys import sidecar_part_name
from trackmill.schemas.receipt import ShardInfo

_HELD_PARTS = 8


@dataclass(frozen=True, kw_only=True)
class Carried:
    """Which sidecars come along.

    Args:
        abouts: `sidecar.json` of each in the new data set.
        left_out: why each of the others does not.
    """

    abouts: tuple[About, ...]
    left_out: dict[str, str] = field(default_factory=dict)


def carried_sidecars(sources: Sequence[Source], dataset: str) -> Carried:
    """The sidecars that all inputs have, whole and made in the same way.

    Args:
        sources: inputs.
        dataset: fingerprint of the new data set.

    Raises:
        OSError: a file beside one of them could not be read.
    """
    names = sorted({name for source in sources for name in (*source.sidecars.by_name, *source.sidecars.damaged)})
    abouts, left_out = [], {}
    for name in names:
        if why := next(filter(None, (_lacking(source, name) for source in sources)), ""):
            left_out[name] = why
            continue
        found = [source.sidecars.by_name[name].about for source in sources]
        if len({about.fingerprint for about in found}) > 1:
            left_out[name] = "the inputs' were made with different settings"
            continue
        abouts.append(found[0].model_copy(update={"dataset": dataset}))
    return Carried(abouts=tuple(abouts), left_out=left_out)


def carried_on(layout: Layout, carried: Carried, done: Collection[int]) -> Carried:
    """Of the sidecars that would come along, those that came along with the units that are there already.

    A sidecar that was made later, or with other settings, would be one of some units only.

    Args:
        layout: of the new data set.
        carried: what the inputs have.
        done: units that are there.

    Raises:
        OSError: storage failed.
    """
    there = find_sidecars(layout)
    parts = {sidecar_part_name(unit) for unit in done}
    abouts, left_out = [], dict(carried.left_out)
    for about in carried.abouts:
        own = there.by_name.get(about.name)
        lacking = len(parts - set(own.parts)) if own is not None else 0
        if about.name in there.damaged:
            left_out[about.name] = there.damaged[about.name]
        elif own is None:
            left_out[about.name] = "the output was begun before it was made, or without it; give another --output"
        elif own.about.fingerprint != about.fingerprint:
            left_out[about.name] = "the output has one that was made with other settings"
        elif lacking:
            left_out[about.name] = f"the output has it for {len(parts) - lacking} of {len(parts)} units only"
        else:
            abouts.append(about)
    return Carried(abouts=tuple(abouts), left_out=left_out)


def begin_sidecars(layout: Layout, sources: Sequence[Source], abouts: Sequence[About]) -> None:
    """Write `sidecar.json` of each, and the files beside its parts.

    Raises:
        OSError: storage failed for good.
    """
    for about in abouts:
        first = sources[0].dataset.layout
        assert first is not None
        publish_files(layout, about.name, stored_files(first, about.name, about.files), {})
        publish_document(layout.sidecar_about(about.name), about.model_dump(mode="json"))


class PartCopier:
    """Makes the parts of the new units; from any thread.

    Args:
        layout: of the new data set.
        sources: inputs.
        abouts: the sidecars that come along.
    """

    def __init__(self, layout: Layout, sources: Sequence[Source], abouts: Sequence[About]) -> None:
        self._layout, self._sources, self._abouts = layout, sources, abouts
        self._shards = [{shard.name: shard for shard in source.dataset.shards} for source in sources]
        # Neighbouring units share a part only at their border.
        self._part = functools.lru_cache(maxsize=_HELD_PARTS)(self._read)

    def write(self, unit: int, taken: Sequence[Taken], shards: Sequence[ShardInfo]) -> None:
        """Write the parts of a unit whose shards are published; its receipt comes later.

        Args:
            unit: its number.
            taken: its samples.
            shards: of it.

        Raises:
            BadPart, SidecarError: a part of an input is damaged, or describes other shards.
            JobError: a part would be too large.
            OSError: storage failed for good.
        """
        for about in self._abouts:
            rows = PartRows(about.columns)
            for source, row in taken:
                part = self._part(source, about.name, part_of_shard(row.shard, about.name))
                check_shard(part.about, self._shards[source][row.shard], part.where)
                rows.add(row.key, part.quarantined(row.key) or part.of_sample(row.key))
            own = PartAbout(
                name=about.name,
                fingerprint=about.fingerprint,
                dataset=about.dataset,
                unit=unit,
                retry=0,
                shards=tuple(shards),
                samples=rows.samples,
                quarantined=tuple(rows.quarantined),
            )
            publish_bytes(self._layout.sidecar_part(about.name, own.file_name), part_bytes(own, rows.table()))

    def _read(self, source: int, name: str, file_name: str) -> SidecarPart:
        sidecar = self._sources[source].sidecars[name]
        where = f"sidecars/{name}/{file_name}"
        part = read_part(join(sidecar.folder, file_name), where, sidecar.about.columns)
        check_maker(part.about, sidecar, file_name, where)
        return part


def _lacking(source: Source, name: str) -> str:
    if name in source.sidecars.damaged:
        return source.sidecars.damaged[name]
    sidecar = source.sidecars.by_name.get(name)
    if sidecar is None:
        return f"{source.url} has none"
    wanted = {task.file_name for task in part_tasks(source.dataset.shards)}
    missing = len(wanted - set(sidecar.parts))
    return f"{source.url} has it for {len(wanted) - missing} of {len(wanted)} units only" if missing else ""
