"""Who makes parts in a process: one part in, published or not at all. Knows nothing of Ray or of other workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from trackmill.models.device import is_device_failure
from trackmill.pipeline.shards.decode import Sample, parse_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.stream import ShardBytes, raw_samples, split_piece
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.sidecars.about import SidecarError, read_about
from trackmill.pipeline.sidecars.making import Made, Maker, publish_part
from trackmill.pipeline.sidecars.part import BadPart, PartRows, Quarantined, SidecarPart, read_part
from trackmill.pipeline.sidecars.part_work import PartResult, PartUnit, SidecarWork
from trackmill.pipeline.sidecars.tables import check_part, check_shard
from trackmill.pipeline.storage.credentials import path_error, scrub
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.workers.inflight import InFlightNote
from trackmill.pipeline.workers.item_clock import ItemClock
from trackmill.pipeline.workers.status import LiveStatus
from trackmill.pipeline.workers.task import DeviceLost, Status, StorageFailed
from trackmill.pipeline.workers.threads import limit_threads
from trackmill.pipeline.workers.turns import Turns
from trackmill.pipeline.workers.work_times import Ledger
from trackmill.schemas.media import WorkItem

_ADVICE = "jobs/inspect_shards.py --verify says what is wrong with the shards"


class PartWorker:
    """Makes parts of one sidecar; see `trackmill.pipeline.workers.unit_worker.UnitWorker`.

    Args:
        work: what to make.

    Raises:
        OtherLibraries, InputError, OSError, MissingPackage: see `Maker`.
    """

    def __init__(self, work: SidecarWork) -> None:
        self._layout, self._dataset = Layout(work.root), work.dataset
        self._maker = Maker(work.job)
        limit_threads(work.threads)
        self.note = InFlightNote()
        self.clock = ItemClock(work.item_timeout_s)
        self._live = LiveStatus()
        self._ledger = Ledger()
        self.turns = Turns(self.note, self._live, self._ledger)

    @property
    def status(self) -> Status:
        """What this worker is doing right now; any thread may read it."""
        return self._live.read()

    def run_unit(self, task: PartUnit) -> PartResult:
        """Make and publish one part, streaming over its shards.

        Returns:
            What became of it; `failed` where a shard is damaged, which is no reason to stop at the others.

        Raises:
            BadRows: the producer broke its contract.
            StorageFailed: storage failed.
            DeviceLost: the accelerator failed; this worker is of no more use.
        """
        name, part = self._maker.job.name, task.part
        try:
            with self.turns.hold(task):
                with self.turns.work(task):
                    rows = self._all_rows(task)
                with self.turns.publish(task):
                    size = publish_part(
                        self._layout, self._maker.job, self._dataset, part.unit, part.retry, part.shards, rows
                    )
        except (BadShard, FileNotFoundError) as error:
            return PartResult(file_name=part.file_name, unit=task.unit, failed=f"{error}; {_ADVICE}")
        except SidecarError as error:
            return PartResult(file_name=part.file_name, unit=task.unit, failed=str(error))
        except OSError as error:
            what = path_error(error) or error
            raise StorageFailed(scrub(f"sidecars/{name}/{part.file_name}: cannot be made: {what}")) from error
        return PartResult(
            file_name=part.file_name,
            unit=task.unit,
            samples=rows.samples,
            rows=rows.rows,
            num_bytes=size,
            frames=task.frames,
            quarantined=[(entry.key, entry.error_class, entry.reason) for entry in rows.quarantined[:20]],
            num_quarantined=len(rows.quarantined),
            counts=dict(rows.counts),
            times=self._ledger.take(),
        )

    def measure(self, items: Sequence[WorkItem]) -> list[tuple[int, float, int]]:
        """Make rows without writing anything: (frames, seconds, bytes) of each sample; no frames of a bad one."""
        measured = []
        for item in items:
            start = time.perf_counter()
            frames = size = 0
            # A forecast only wants the time; the run itself says what is wrong with a shard.
            with contextlib.suppress(BadShard, OSError):
                piece = read_bytes(self._layout.shard(item.uri), item.offset, item.length)
                sample = parse_sample(split_piece(piece, item.uri, item.offset))
                rows = PartRows(self._maker.columns)
                rows.add(sample.key, self._maker.make(sample))  # what other sidecars say takes no time
                if not rows.quarantined:
                    frames, size = len(sample.record.frames), rows.packed_bytes()
            measured.append((frames, time.perf_counter() - start, size))
        return measured

    def close(self) -> None:
        """End in good order: leave nothing behind."""
        self.note.remove()

    def _all_rows(self, task: PartUnit) -> PartRows:
        """The rows of all samples of a part."""
        rows = PartRows(self._maker.columns)
        others = self._others(task)
        left = len(task.items)
        for sample, position in self._samples(task):
            self._ledger.wait("writing")
            self.turns.advance(task, left)
            left -= 1
            made = self._rows(task, position, sample, others)
            rows.add(sample.key, made)
            self.note.put(task.unit, position)
            self._live.item_done(task.unit, len(sample.record.frames), isinstance(made, Quarantined))
            self._ledger.wait("reading")
        return rows

    def _samples(self, task: PartUnit) -> Iterator[tuple[Sample, int]]:
        """Samples of a part with their positions, in the order of its shards, whose SHA-256 is tested on the way."""
        places = {item.key: position for position, item in zip(task.positions, task.items)}
        for shard in task.part.shards:
            source = ShardBytes(self._layout.shard(shard.name), shard.num_bytes)
            samples = raw_samples(source, shard.name)
            while True:
                with self._live.stage("reading", shard.name):
                    raw = next(samples, None)
                if raw is None:
                    break
                sample = parse_sample(raw)
                if sample.key not in places:
                    raise BadShard(f"{shard.name}: holds {sample.key}, which its receipt does not list")
                yield sample, places[sample.key]
            if source.sha256() != shard.sha256:
                raise BadShard(f"{shard.name}: its SHA-256 is not that of its receipt")

    def _others(self, task: PartUnit) -> dict[str, SidecarPart]:
        """The parts of this unit in the sidecars that the producer reads.

        Raises:
            SidecarError: one of them is missing, damaged, or was made for other shards.
        """
        found = {}
        for name, fingerprint in self._maker.job.reads.items():
            where = f"sidecars/{name}/{task.part.file_name}"
            about = read_about(self._layout, name)
            if about.fingerprint != fingerprint:
                raise SidecarError(f"sidecars/{name}: was made anew with other settings while this one is made from it")
            try:
                part = read_part(self._layout.sidecar_part(name, task.part.file_name), where, about.columns)
            except BadPart as error:
                raise SidecarError(str(error)) from None
            except FileNotFoundError:
                raise SidecarError(f"{where}: is missing: finish the sidecar {name} first") from None
            check_part(part.about, name, about, task.part.file_name, where)
            for shard in task.part.shards:
                check_shard(part.about, shard, where)
            found[name] = part
        return found

    def _rows(self, task: PartUnit, position: int, sample: Sample, others: Mapping[str, SidecarPart]) -> Made:
        if position in task.poisoned:
            error_class = "TimeLimit" if position in task.overdue else "WorkerDied"
            return Quarantined(key=sample.key, error_class=error_class, reason=task.poisoned[position])
        self.note.take(task.unit, position)
        try:
            with (
                self.clock.running((task.unit, position), len(sample.record.frames)),
                self._live.stage("making the rows of", sample.key),
                self._ledger.model(),
            ):
                for name, part in others.items():
                    if bad := part.quarantined(sample.key):
                        reason = f"sidecars/{name}: it is quarantined there: {bad.reason}"
                        return Quarantined(key=sample.key, error_class=bad.error_class, reason=reason)
                return self._maker.make(sample, {name: part.of_sample(sample.key) for name, part in others.items()})
        except Exception as error:
            if is_device_failure(error):
                raise DeviceLost(scrub(str(error))) from error
            raise
