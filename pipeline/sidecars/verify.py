"""The check that sidecars fit the shards beside them: every part, every row, while the shards are looked at anyway."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from pydantic import ValidationError

from trackmill.pipeline.shards.check import Fault, SampleShape
from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.sidecars.about import Sidecar, SidecarError, command, find_sidecars
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.files import wrong_files
from trackmill.pipeline.sidecars.part import BadPart, SidecarPart, read_part
from trackmill.pipeline.sidecars.producer import Rows, bad_boxes
from trackmill.pipeline.sidecars.producers import PRODUCERS
from trackmill.pipeline.sidecars.tables import check_maker, check_shard
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.keys import shard_numbers, sidecar_part_name
from trackmill.schemas.receipt import ShardInfo

_MOST_NAMED = 5
"""Faults of one kind that are named in one part; more are counted."""


class SidecarCheck:
    """Checks the sidecars of a data set, beside `trackmill.pipeline.shards.verify.verify`.

    `shard_done` is called by it after each shard, with what the shard's samples say of themselves, so that nothing is
    read twice; `rest` looks at what belongs to no shard.

    Args:
        dataset: opened with `keep_damaged=True`.

    Raises:
        OSError: the sidecars could not be listed.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._lock = threading.Lock()
        self._found = find_sidecars(dataset.layout) if dataset.layout is not None and dataset.receipts else None
        self._parts = _parts(dataset.shards)
        self._units = {shard.name: name for name, shards in self._parts.items() for shard in shards}
        # Unknown rows are recognised only when all shards of a part have been read.
        self._seen: dict[str, dict[str, SampleShape]] = {}
        self._left = {name: len(shards) for name, shards in self._parts.items()}
        self._quarantined: Counter[str] = Counter()

    def __bool__(self) -> bool:
        """Whether there is any sidecar to check."""
        return bool(self._found and (self._found.by_name or self._found.damaged))

    @property
    def names(self) -> list[str]:
        """Of the sidecars that can be read."""
        return list(self._found.by_name) if self._found else []

    def shard_done(self, shard: ShardInfo, shapes: Mapping[str, SampleShape]) -> list[Fault]:
        """What is wrong with the sidecars of a unit, once all its shards were looked at; nothing before that.

        Args:
            shard: that was looked at just now.
            shapes: of its samples, by key; those that could not be read are missing.
        """
        part = self._units.get(shard.name)
        if not self or part is None:
            return []
        with self._lock:
            self._seen.setdefault(part, {}).update(shapes)
            self._left[part] -= 1
            if self._left[part]:
                return []
            seen = self._seen.pop(part)
        assert self._found is not None
        faults: list[Fault] = []
        for sidecar in self._found.by_name.values():
            if part in sidecar.parts:
                faults += self._check(sidecar, part, seen)
        return faults

    def rest(self) -> list[Fault]:
        """Sidecars that cannot be read, and parts of units that the data set does not have."""
        if self._found is None:
            return []
        faults = [Fault(f"sidecars/{name}", "", what) for name, what in self._found.damaged.items()]
        for name, sidecar in self._found.by_name.items():
            for file, what in wrong_files(sidecar.folder, sidecar.about.files):
                faults.append(Fault(f"sidecars/{name}/{file}", "", f"{what}; the command that makes it mends that"))
            for part in sorted(sidecar.parts.keys() - self._parts.keys()):
                faults.append(Fault(f"sidecars/{name}/{part}", "", "describes a unit that has no shards; delete it"))
        return faults

    def unfinished(self) -> list[str]:
        """Warnings, once all shards were looked at: parts that are missing, and samples that are quarantined."""
        if self._found is None:
            return []
        warnings = []
        for name, sidecar in self._found.by_name.items():
            missing = len(self._parts.keys() - sidecar.parts.keys())
            if missing:
                makes = command(self._dataset.url, name, sidecar.about.parts["producer"]["name"])
                unwanted = "" if sidecar.parts else f"; if nobody wants it: delete sidecars/{name}, which has no rows"
                warnings.append(
                    f"sidecar {name}: {missing} of {len(self._parts)} parts are missing; {makes} makes them{unwanted}"
                )
            if self._quarantined[name]:
                warnings.append(f"sidecar {name}: {self._quarantined[name]} samples are quarantined in it")
        return warnings

    def _check(self, sidecar: Sidecar, file_name: str, seen: Mapping[str, SampleShape]) -> list[Fault]:
        where = f"sidecars/{sidecar.about.name}/{file_name}"
        try:
            part = read_part(join(sidecar.folder, file_name), where, sidecar.about.columns)
            check_maker(part.about, sidecar, file_name, where)
            for shard in self._parts[file_name]:
                check_shard(part.about, shard, where)
        except (BadPart, SidecarError) as error:
            return [Fault(where, "", str(error).removeprefix(f"{where}: "))]
        except OSError as error:
            return [Fault(where, "", f"could not be read: {error}")]
        with self._lock:
            self._quarantined[sidecar.about.name] += len(part.about.quarantined)
        faults = [Fault(where, "", what) for what in (*self._whole(part, file_name), *_bad_counts(part, seen))]
        own_check = _check_of_producer(sidecar)
        for key in part.keys:
            if key in seen:
                faults += (Fault(where, key, what) for what in _bad_rows(part, sidecar.about.columns, key, seen[key]))
                faults += (Fault(where, key, what) for what in own_check(part.of_sample(key), seen[key].objects))
        return _shortened(faults, where)

    def _whole(self, part: SidecarPart, file_name: str) -> Iterator[str]:
        names = {shard.name for shard in self._parts[file_name]}
        for gone in [shard.name for shard in part.about.shards if shard.name not in names]:
            yield f"describes {gone}, which no receipt lists; delete it and make it again"
        stored = {row.key for name in names for row in self._dataset.rows_of(name)}
        for key in part.keys:
            if key not in stored:
                yield f"has rows about {key!r}, which is no sample of its shards"
        for entry in part.about.quarantined:
            if entry.key not in stored:
                yield f"quarantines {entry.key!r}, which is no sample of its shards"
        if part.about.samples != len(stored):
            yield f"was made from {part.about.samples} samples, its shards have {len(stored)}"


def _parts(shards: Sequence[ShardInfo]) -> dict[str, list[ShardInfo]]:
    """Shards by the file name of the part that describes them; shards of other names have none."""
    parts: dict[str, list[ShardInfo]] = {}
    for shard in shards:
        try:
            unit, retry, _ = shard_numbers(shard.name)
        except ValueError:
            continue
        parts.setdefault(sidecar_part_name(unit, retry), []).append(shard)
    return parts


def _bad_counts(part: SidecarPart, seen: Mapping[str, SampleShape]) -> Iterator[str]:
    """Of the counts of a part, those that do not agree with what it holds; see `CountedRows`."""
    about = part.about
    if about.counts.get("kept", part.table.num_rows) != part.table.num_rows:
        yield f"counts {about.counts['kept']} rows as kept, and has {part.table.num_rows}; delete it and make it again"
    if "frames" in about.counts and len(seen) == about.samples:
        quarantined = {entry.key for entry in about.quarantined}
        frames = sum(shape.frames for key, shape in seen.items() if key not in quarantined)
        if about.counts["frames"] != frames:
            yield f"counts {about.counts['frames']} frames, its samples have {frames}; delete it and make it again"


def _check_of_producer(sidecar: Sidecar) -> Callable[[Rows, Sequence[Boxes | None]], Iterator[str]]:
    """`Producer.wrong_rows` of ours who made the sidecar as it is today; nothing of anybody else."""
    made = sidecar.about.parts.get("producer", {})
    kind = PRODUCERS.get(str(made.get("name")))
    if kind is not None and made.get("version") == kind.version and sidecar.about.columns == tuple(kind.columns):
        with contextlib.suppress(ValidationError):
            config = kind.Config.model_validate(sidecar.about.settings)
            return lambda rows, objects: kind.wrong_rows(config, rows, objects)
    return lambda rows, objects: iter(())


def _bad_rows(part: SidecarPart, columns: Sequence[Column], key: str, shape: SampleShape) -> Iterator[str]:
    rows, num_frames = part.of_sample(key), shape.frames
    frames = rows["frame"]
    if len(frames) and not (frames.min() >= 0 and frames.max() < num_frames):
        bad = frames[(frames < 0) | (frames >= num_frames)]
        yield f"has a row about frame {bad[0]}, the sample has {num_frames}"
    for column in columns:
        values = rows[column.name]
        if column.dtype == "box":
            for row in np.flatnonzero(bad_boxes(values, shape.height, shape.width))[:1]:
                yield (
                    f"{column.name} {values[row].tolist()} of frame {frames[row]} has no area or leaves its frame of "
                    f"{shape.height} x {shape.width}"
                )
        elif column.dtype in ("float32", "float64") and not np.isfinite(values).all():
            yield f"{column.name} holds a number that is not finite"


def _shortened(faults: list[Fault], where: str) -> list[Fault]:
    if len(faults) <= _MOST_NAMED:
        return faults
    return [*faults[:_MOST_NAMED], Fault(where, "", f"{len(faults) - _MOST_NAMED} more faults like these")]
