"""Making the rows of sidecars: the same work beside mining and later, over shards that lie there."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from trackmill.models.device import is_device_failure
from trackmill.pipeline.shards.decode import Sample, parse_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.stream import RawSample
from trackmill.pipeline.sidecars.about import SidecarJob, libraries
from trackmill.pipeline.sidecars.columns import check_columns
from trackmill.pipeline.sidecars.part import PartAbout, PartRows, Quarantined, part_bytes
from trackmill.pipeline.sidecars.producer import BadRows, CountedRows, Rows, check_counts, check_rows
from trackmill.pipeline.sidecars.producers import producer_class
from trackmill.pipeline.storage.credentials import error_text
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.schemas.config import build
from trackmill.schemas.errors import JobError
from trackmill.schemas.receipt import ShardInfo

Made = dict[str, Any] | Quarantined
"""Rows of one sample as `trackmill.pipeline.sidecars.producer.check_rows` returns them, or why there are none."""


class OtherLibraries(JobError):
    """This machine would make other rows than the one that began the sidecar; the text names each library."""


class Maker:
    """A producer, loaded once in a worker, and the sidecar that it makes.

    Args:
        job: see `SidecarJob`.

    Raises:
        OtherLibraries: this worker is not like the driver.
        InputError, OSError, MissingPackage: the producer cannot be built; says what to do.
    """

    def __init__(self, job: SidecarJob) -> None:
        self.job = job
        kind = producer_class(job.producer)
        settings = build(kind.Config, job.settings, f"sidecars.{job.name}")
        here = {**libraries(), **kind.implementation(settings)}
        wrong = [
            f"{name} {here.get(name, 'missing')} (driver: {value})"
            for name, value in sorted(job.libraries.items())
            if here.get(name) != value
        ]
        if wrong:
            raise OtherLibraries(
                f"sidecar {job.name}: worker {socket.gethostname()} has {', '.join(wrong)}; use one image for all"
            )
        self.columns = check_columns(kind.columns, f"producer {kind.name}")
        self._producer = kind.build(settings, job.files)
        self._lock = threading.Lock()

    def make(self, sample: Sample, others: Mapping[str, Rows] | None = None) -> Made:
        """The rows of a sample; called from one thread at a time.

        Args:
            sample: as a shard holds it.
            others: its rows in the sidecars that the producer reads, by name.

        Raises:
            BadRows: the producer broke its contract.
            Exception: the accelerator failed; this process is of no more use.
        """
        # Where a sample lies is not known yet while it is mined; what is said of it must not depend on that.
        sample = dataclasses.replace(sample, shard="shard", offset=0)
        try:
            with self._lock:
                rows = self._producer.rows_beside(sample, others) if others else self._producer.rows(sample)
        except Exception as error:
            if is_device_failure(error):
                raise
            return Quarantined(key=sample.key, error_class=type(error).__name__, reason=error_text(error))
        name = self._producer.name
        return CountedRows(check_rows(name, self.columns, sample, rows), check_counts(name, sample, rows))


class UnitParts:
    """The parts of all sidecars of one unit, while it is mined.

    Args:
        makers: one for each sidecar.
        layout: of the data set.
        dataset: its fingerprint.
        unit, retry: see `trackmill.schemas.keys.shard_name`.
    """

    def __init__(self, makers: Sequence[Maker], layout: Layout, dataset: str, unit: int, retry: int) -> None:
        self._makers, self._layout, self._dataset = makers, layout, dataset
        self._unit, self._retry = unit, retry
        self._rows = [PartRows(maker.columns) for maker in makers]

    def add(self, key: str, made: Sequence[Made]) -> None:
        """Add what `make_all` made of a sample; samples come in the order in which they are written."""
        for rows, one in zip(self._rows, made):
            rows.add(key, one)

    def publish(self, shards: Sequence[ShardInfo]) -> int:
        """Publish the parts of a unit after its shards and before its receipt; returns their bytes.

        Raises:
            OSError: a part could not be written.
            JobError: a part is larger than parts may be.
        """
        total = 0
        for maker, rows in zip(self._makers, self._rows):
            if shards:
                total += publish_part(self._layout, maker.job, self._dataset, self._unit, self._retry, shards, rows)
            else:  # what a killed try, which still had samples, may have left
                about = _about(maker.job, self._dataset, self._unit, self._retry, shards, rows)
                leftover = self._layout.sidecar_part(maker.job.name, about.file_name)
                if exists(leftover):
                    remove(leftover)
        return total


def make_all(makers: Sequence[Maker], key: str, members: list[tuple[str, bytes]]) -> list[Made]:
    """What each maker makes of a sample that was encoded just now, read back from its members as a shard holds them.

    Raises:
        BadRows, Exception: see `Maker.make`.
    """
    if not makers:
        return []
    sample = parse_sample(RawSample("shard", key, 0, members))
    return [maker.make(sample) for maker in makers]


def publish_part(
    layout: Layout, job: SidecarJob, dataset: str, unit: int, retry: int, shards: Sequence[ShardInfo], rows: PartRows
) -> int:
    """Write a part under its name, whole or not at all; returns its length in bytes.

    Raises:
        OSError: could not be written after several attempts.
        JobError: it is larger than a part may be.
    """
    about = _about(job, dataset, unit, retry, shards, rows)
    data = part_bytes(about, rows.table())
    publish_bytes(layout.sidecar_part(job.name, about.file_name), data)
    return len(data)


def _about(
    job: SidecarJob, dataset: str, unit: int, retry: int, shards: Sequence[ShardInfo], rows: PartRows
) -> PartAbout:
    return PartAbout(
        name=job.name,
        fingerprint=job.fingerprint,
        dataset=dataset,
        unit=unit,
        retry=retry,
        shards=tuple(shards),
        samples=rows.samples,
        quarantined=tuple(rows.quarantined),
        counts=dict(sorted(rows.counts.items())),
    )


__all__ = ["BadRows", "Made", "Maker", "OtherLibraries", "UnitParts", "make_all", "publish_part"]
