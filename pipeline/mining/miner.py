"""The miner: one unit of items in, its shards and its receipt out. Knows nothing of Ray or of other miners.

A unit is done the same way wherever and however often it is done, so doing it twice is harmless: the tars have the same
names and the same bytes, and the receipt comes last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from trackmill.models.device import is_device_failure
from trackmill.models.proposers.base import Proposer
from trackmill.models.proposers.check import BadProposals, check_proposals
from trackmill.pipeline.media.pictures import encode_jpeg
from trackmill.pipeline.mining.negatives import pseudo_negatives
from trackmill.pipeline.mining.reading import ItemReader, Reading, reason_of
from trackmill.pipeline.mining.settings import MineConfig, mine_config
from trackmill.pipeline.mining.unit import MineJob, UnitResult
from trackmill.pipeline.shards.encode import SampleCounts, Stamp, encode_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import read_receipt, write_receipt
from trackmill.pipeline.shards.writer import ShardWriter
from trackmill.pipeline.sidecars.making import Made, Maker, UnitParts, make_all
from trackmill.pipeline.storage.credentials import path_error, scrub
from trackmill.pipeline.storage.secrets.signed_urls import adopt_signatures
from trackmill.pipeline.workers.inflight import HANDS, InFlightNote
from trackmill.pipeline.workers.item_clock import ItemClock
from trackmill.pipeline.workers.status import LiveStatus
from trackmill.pipeline.workers.task import DeviceLost, Status, StorageFailed, UnitTask
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.media import Frame, Media, ProposalSet, WorkItem
from trackmill.schemas.receipt import ReceiptRow

# Beside the items that are mined at once, one is read ahead and one waits to be written.
MOST_AT_ONCE = HANDS - 2


@dataclass(slots=True)
class _Read:
    """An item after reading: either media or why there is none."""

    position: int
    item: WorkItem
    reading: Reading
    seconds: float


@dataclass(slots=True)
class _Mined:
    """An item with all that is known of it, and the members of its sample; none where there is nothing to store."""

    item: WorkItem
    row: ReceiptRow
    members: list[tuple[str, bytes]]
    sidecars: list[Made]
    seconds: float


class Miner:
    """Does units; items are read elsewhere, see `trackmill.pipeline.mining.reading`.

    Args:
        job: what to do.
        proposer: built from the settings of the job; see `trackmill.pipeline.mining.start`.
        makers: of the sidecars that are made in the same pass.
        reader: reads the items; made from the settings of the job if there is none yet.

    Raises:
        ValueError: the proposer wants more items at once than a miner may hold in hand.
    """

    def __init__(
        self, job: MineJob, proposer: Proposer, makers: Sequence[Maker] = (), reader: ItemReader | None = None
    ) -> None:
        if not 1 <= proposer.concurrency <= MOST_AT_ONCE:
            raise ValueError(
                f"proposer {proposer.name}: concurrency is {proposer.concurrency}, should be 1 to {MOST_AT_ONCE}"
            )
        self.config: MineConfig = mine_config(job.config, "job")
        self.layout = Layout(job.root)
        self.note = InFlightNote()
        self._live = LiveStatus()
        self._fingerprint = job.fingerprint
        self._proposer = proposer
        self._makers = makers
        self._reader = reader or ItemReader(self.config)
        self.clock = ItemClock(self.config.run.item_timeout_s)
        self._stamp = Stamp(
            proposer=f"{proposer.name}/{proposer.version}",
            fingerprint=job.fingerprint,
            longest_side=self.config.read.longest_side,
            frames_per_clip=self.config.read.frames_per_clip,
        )
        # Pillow remarks on odd metadata; what matters is whether the pixels can be read, and that is in the receipt.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

    @property
    def status(self) -> Status:
        """What this miner is doing right now; any thread may read it."""
        return self._live.read()

    def run_unit(self, task: UnitTask) -> UnitResult:
        """Do one unit, publish its shards, then its receipt.

        Raises:
            StorageFailed: the output could not be written.
            DeviceLost: the accelerator failed; this miner is of no more use.
        """
        start = time.perf_counter()
        adopt_signatures(task.signatures)
        self.note.begin(task.unit)
        self._live.begin(task.unit)
        writer = ShardWriter(
            self.layout, task.unit, self.config.shards.max_bytes, self.config.shards.max_samples, task.retry
        )
        parts = UnitParts(self._makers, self.layout, self._fingerprint, task.unit, task.retry)
        try:
            with writer, contextlib.closing(self._mine_ahead(task)) as mined:
                rows = [self._store(each, writer, parts) for each in mined]
                self._live.enter("publishing")
            writer.remove_leftovers()
            parts.publish(writer.shards)
            self._live.enter("writing the receipt")
            rows += _poisoned_rows(task)
            self._write_receipt(task, rows, writer)
        except OSError as error:
            raise StorageFailed(
                scrub(f"unit {task.unit}: cannot write its output: {path_error(error) or error}")
            ) from error
        finally:
            self.note.end()
            self._live.enter("idle")
        bad = [row for row in rows if row.status == "quarantined"]
        return UnitResult(
            unit=task.unit,
            items=len(rows),
            frames=sum(item.frames for item in task.items),
            proposals=sum(row.proposals for row in rows),
            statuses={status: sum(row.status == status for row in rows) for status in ("ok", "quarantined", "skipped")},
            quarantined=[(row.source_id, row.error_class, row.reason) for row in bad[:20]],
            num_bytes=sum(shard.num_bytes for shard in writer.shards),
            seconds=time.perf_counter() - start,
        )

    def close(self) -> None:
        """End in good order: leave nothing behind."""
        self._reader.close()
        self.note.remove()

    def measure(self, items: Sequence[WorkItem]) -> list[tuple[int, float, int]]:
        """Mine items without writing anything: (frames, seconds, bytes) of each; (0, seconds, 0) for a bad one."""
        measured = []
        for item in items:
            start = time.perf_counter()
            size = frames = 0
            # A forecast only wants the time; the run itself will quarantine the item with its reason.
            with contextlib.suppress(Exception):
                media = self._reader.read(item).media
                assert media is not None
                members, counts = self._mine(item, media)
                make_all(self._makers, item.key, members)
                size, frames = sum(len(data) for _, data in members), counts.frames
            measured.append((frames, time.perf_counter() - start, size))
        return measured

    def _read_ahead(self, task: UnitTask) -> Generator[_Read, None, None]:
        """Read items in order, one ahead of the one that is worked on."""
        wanted = [(p, item) for p, item in zip(task.positions, task.items) if p not in task.poisoned]
        if task.serial:
            for position, item in wanted:
                self._live.enter("reading", item.source_id)
                yield self._read(position, item)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
            ahead = reader.submit(self._read, *wanted[0]) if wanted else None
            try:
                for (_, item), following in zip(wanted, [*wanted[1:], None]):
                    self._live.enter("reading", item.source_id)
                    assert ahead is not None
                    arrival = ahead.result()
                    ahead = reader.submit(self._read, *following) if following else None
                    yield arrival
            finally:
                if ahead is not None and not ahead.done():
                    self._reader.interrupt()  # nobody waits for it any more

    def _read(self, position: int, item: WorkItem) -> _Read:
        self.note.take(position)
        start = time.perf_counter()
        reading = self._reader.read(item)
        for frame in reading.media.frames if reading.media else ():
            frame.image.setflags(write=False)  # what a proposer writes there would be stored
        self.note.put(position)
        return _Read(position, item, reading, time.perf_counter() - start)

    def _mine_ahead(self, task: UnitTask) -> Generator[_Mined, None, None]:
        """Items in order, everything done but the writing; as many at once as the proposer has a use for."""
        concurrency = 1 if task.serial else self._proposer.concurrency
        with contextlib.closing(self._read_ahead(task)) as arrivals:
            if concurrency == 1:
                yield from (self._mine_item(task, arrival) for arrival in arrivals)
                return
            with ThreadPoolExecutor(concurrency, thread_name_prefix="miner") as miners:
                ahead: deque[Future[_Mined]] = deque()
                for arrival in arrivals:
                    ahead.append(miners.submit(self._mine_item, task, arrival))
                    if len(ahead) > concurrency:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()

    def _mine_item(self, task: UnitTask, arrival: _Read) -> _Mined:
        self.note.take(arrival.position)
        with self.clock.running(arrival.position, arrival.item.frames):
            return self._mine_read(task, arrival)

    def _mine_read(self, task: UnitTask, arrival: _Read) -> _Mined:
        start = time.perf_counter()
        row = ReceiptRow(
            source_id=arrival.item.source_id,
            key=arrival.item.key,
            uri=arrival.item.uri,
            status="ok",
            unit=task.unit,
            position=arrival.position,
            attempts=task.retry + 1,
        )
        members: list[tuple[str, bytes]] = []
        reading = arrival.reading
        if reading.media is None:
            row = replace(row, status=reading.status, reason=reading.reason, error_class=reading.error_class)
        else:
            try:
                members, counts = self._mine(arrival.item, reading.media)
                row = replace(row, license=reading.media.license, **dataclasses.asdict(counts))
            except BadProposals:
                raise
            except Exception as error:
                if is_device_failure(error):
                    raise DeviceLost(scrub(str(error))) from error
                row = replace(row, status="quarantined", reason=reason_of(error), error_class=type(error).__name__)
        sidecars = self._make_sidecars(arrival.item, members) if members and self._makers else []
        return _Mined(arrival.item, row, members, sidecars, arrival.seconds + time.perf_counter() - start)

    def _make_sidecars(self, item: WorkItem, members: list[tuple[str, bytes]]) -> list[Made]:
        # Apart from what an item can be blamed for: a sample lies in the shards whatever a sidecar makes of it.
        self._live.enter("making sidecars", item.source_id)
        try:
            return make_all(self._makers, item.key, members)
        except Exception as error:
            if is_device_failure(error):
                raise DeviceLost(scrub(str(error))) from error
            raise

    def _store(self, mined: _Mined, writer: ShardWriter, parts: UnitParts) -> ReceiptRow:
        start = time.perf_counter()
        row = mined.row
        if mined.members:
            # Here, and not where an item's own errors are caught: a full disk or bucket is not the item's fault.
            self._live.enter("writing", mined.item.source_id)
            shard, offset, size = writer.write(mined.members)
            parts.add(row.key, mined.sidecars)
            row = replace(row, shard=shard, offset=offset, size=size, checksum=writer.checksum)
        self.note.put(row.position)
        self._live.item_done(mined.item.frames, row.status == "quarantined")
        return replace(row, seconds=round(mined.seconds + time.perf_counter() - start, 4))

    def _mine(self, item: WorkItem, media: Media) -> tuple[list[tuple[str, bytes]], SampleCounts]:
        """Frames to proposals to negatives to the members of a sample."""
        self._live.enter("proposing", item.source_id)
        proposals = self._propose(media.frames)
        self._live.enter("encoding", item.source_id)
        size = media.frames[0].image.shape[:2] if media.amodal else None
        negatives = [
            pseudo_negatives(found, frame.annotations, media.annotated, self.config.negatives.max_iou, size)
            for found, frame in zip(proposals, media.frames)
        ]
        return encode_sample(item, media, proposals, negatives, self._stamp, self._jpeg)

    def _propose(self, frames: Sequence[Frame]) -> list[ProposalSet]:
        batch = self._proposer.batch_size
        found: list[ProposalSet] = []
        for begin in range(0, len(frames), batch):
            given = self._proposer.propose(frames[begin : begin + batch])
            if not (isinstance(given, Sequence) and all(isinstance(each, ProposalSet) for each in given)):
                raise BadProposals(f"proposer {self._proposer.name}: propose should return a list of ProposalSet")
            found += given
        if len(found) != len(frames):
            raise BadProposals(
                f"proposer {self._proposer.name}: {len(found)} sets of proposals of {len(frames)} frames"
            )
        for frame, proposals in zip(frames, found, strict=True):
            check_proposals(self._proposer.name, frame, proposals)
        return found

    def _jpeg(self, frame: Frame) -> bytes:
        return encode_jpeg(frame.image, self.config.read.jpeg_quality)

    def _write_receipt(self, task: UnitTask, rows: list[ReceiptRow], writer: ShardWriter) -> None:
        shards, merged = list(writer.shards), {row.position: row for row in rows}
        if task.retry:
            # A retry replaces the rows of the items it did and adds its shards; the unit's other rows stay.
            old = read_receipt(self.layout.receipt(receipt_name(task.unit)))
            fresh = {shard.name for shard in shards}
            shards = [shard for shard in old.shards if shard.name not in fresh] + shards
            merged = {row.position: row for row in old.rows} | merged
        ordered = [merged[position] for position in sorted(merged)]
        write_receipt(self.layout, task.unit, ordered, shards, self._fingerprint)


def _poisoned_rows(task: UnitTask) -> list[ReceiptRow]:
    return [
        ReceiptRow(
            source_id=item.source_id,
            key=item.key,
            uri=item.uri,
            status="quarantined",
            reason=task.poisoned[position],
            error_class="TimeLimit" if position in task.overdue else "WorkerDied",
            unit=task.unit,
            position=position,
            attempts=task.retry + 1,
        )
        for position, item in zip(task.positions, task.items)
        if position in task.poisoned
    ]
