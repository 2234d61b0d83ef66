"""The miner: one unit of items in, its shards and its receipt out. Knows nothing of Ray or of other miners.

A unit is done the same way wherever and however often it is done, so doing it twice is harmless: the tars have the same
names and the same bytes, and the receipt comes last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from trackmill.models.device import is_device_failure
from trackmill.models.proposers.base import Proposer
from trackmill.models.proposers.check import BadProposals, check_proposals
from trackmill.pipeline.media.pictures import encode_jpeg
from trackmill.pipeline.mining.behind import MOST_BEHIND, Behind, UnitBehind
from trackmill.pipeline.mining.kept import KeptUnit
from trackmill.pipeline.mining.negatives import pseudo_negatives
from trackmill.pipeline.mining.read_ahead import Arrival, Arrivals, ReadAhead
from trackmill.pipeline.mining.reading import ItemReader, reason_of
from trackmill.pipeline.mining.settings import MineConfig, mine_config
from trackmill.pipeline.mining.unit import MineJob, UnitResult
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.encode import SampleCounts, Stamp, count_sample, encode_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import read_receipt, write_receipt
from trackmill.pipeline.shards.writer import ShardWriter
from trackmill.pipeline.sidecars.making import Made, Maker, UnitParts, make_all
from trackmill.pipeline.storage.credentials import path_error, scrub
from trackmill.pipeline.storage.secrets.signed_urls import adopt_signatures
from trackmill.pipeline.workers.inflight import HANDS, InFlightNote
from trackmill.pipeline.workers.item_clock import ItemClock
from trackmill.pipeline.workers.status import LiveStatus
from trackmill.pipeline.workers.task import DeviceLost, Status, StorageFailed, UnitDropped, UnitTask
from trackmill.pipeline.workers.turns import Turns
from trackmill.pipeline.workers.work_times import Ledger
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.media import Frame, Media, ProposalSet, WorkItem
from trackmill.schemas.receipt import ReceiptRow

# Beside the items that are mined at once, one is being read and some wait to be written, of this unit and of the last.
MOST_AT_ONCE = 6
assert MOST_AT_ONCE + 1 + 2 * (MOST_BEHIND + 1) <= HANDS


@dataclass(slots=True)
class _Proposed:
    """An item after its proposals, with what is known of it so far; none where reading or proposing failed."""

    item: WorkItem
    row: ReceiptRow
    media: Media | None
    proposals: list[ProposalSet]
    seconds: float
    kept: tuple[Sample, list[tuple[str, bytes]]] | None


@dataclass(slots=True)
class _Mined:
    """An item with all that is known of it, and the members of its sample; none where there is nothing to store."""

    item: WorkItem
    row: ReceiptRow
    members: list[tuple[str, bytes]]
    sidecars: list[Made]
    seconds: float
    is_new: bool


class Miner:
    """Does units; items are read elsewhere, see `trackmill.pipeline.mining.reading`.

    The thread that has a unit's turn does nothing but ask the proposer. Before it another one reads ahead, behind it
    others encode, write and publish, so that the model never waits for them as long as they keep up.

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
        self._ledger = Ledger()
        self.turns = Turns(self.note, self._live, self._ledger)
        self._fingerprint = job.fingerprint
        self._proposer = proposer
        # A proposer that does not say that calls may overlap has the device for itself, also beside sidecars.
        self._device = threading.Lock() if proposer.concurrency == 1 else contextlib.nullcontext()
        self._makers = makers
        self._reader = reader or ItemReader(self.config)
        self._read_ahead = ReadAhead(self._reader, self.note, self._live)
        self._miners = ThreadPoolExecutor(proposer.concurrency, thread_name_prefix="miner")
        self._behind = Behind(self._encode, self._store)
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
        """Do one unit, publish its shards, then its receipt. Two threads may be in here, see `Turns`.

        Raises:
            StorageFailed: the output could not be written.
            DeviceLost: the accelerator failed; this miner is of no more use.
            UnitDropped: see `Turns.drop_after`; nothing is published.
        """
        adopt_signatures(task.signatures)
        with self.turns.hold(task):
            try:
                return self._do_unit(task)
            except OSError as error:
                raise StorageFailed(
                    scrub(f"unit {task.unit}: cannot write its output: {path_error(error) or error}")
                ) from error

    def _do_unit(self, task: UnitTask) -> UnitResult:
        shards = self.config.shards
        writer = ShardWriter(
            self.layout, task.unit, shards.max_bytes, shards.max_samples, task.retry, publisher=self._behind.publisher
        )
        parts = UnitParts(self._makers, self.layout, self._fingerprint, task.unit, task.retry)
        with writer:
            # Its first items are read before its turn comes.
            kept = KeptUnit(self.layout, task, self._fingerprint, self.config.run.keep_s, self._behind.publisher)
            with self._read_ahead.of(task, kept) as arrivals, self._behind.of(task, writer, parts, kept) as behind:
                try:
                    with self.turns.work(task):
                        start = time.perf_counter()
                        self._mine_all(task, arrivals, behind)
                except UnitDropped:
                    behind.settle()
                    kept.flush()
                    raise
                rows = behind.rows()
            with self.turns.publish(task):
                writer.finish()
                writer.remove_leftovers()
                parts.publish(writer.shards)
                rows += _poisoned_rows(task)
                self._write_receipt(task, rows, writer)
                kept.end()
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
            times=self._ledger.take(),
        )

    def close(self) -> None:
        """End in good order: leave nothing behind."""
        self._read_ahead.close()
        self._miners.shutdown(wait=False, cancel_futures=True)
        self._behind.close()
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
                members, counts = self._members(item, media, self._propose(item, media.frames))
                make_all(self._makers, item.key, members)
                size, frames = sum(len(data) for _, data in members), counts.frames
            measured.append((frames, time.perf_counter() - start, size))
        return measured

    def _mine_all(self, task: UnitTask, arrivals: Arrivals, behind: UnitBehind[_Proposed]) -> None:
        """Ask for the proposals of all items, in order; as many at once as the proposer has a use for."""
        concurrency = 1 if task.serial else self._proposer.concurrency
        ahead: deque[Future[_Proposed]] = deque()
        left = len(arrivals)
        try:
            for arrival in arrivals:
                self._ledger.wait("writing")
                self.turns.advance(task, left)
                left -= 1
                if concurrency == 1:
                    behind.add(self._propose_item(task, arrival))
                else:
                    ahead.append(self._miners.submit(self._propose_item, task, arrival))
                    if len(ahead) > concurrency:
                        behind.add(ahead.popleft().result())
                if task.serial:
                    behind.settle()
                self._ledger.wait("reading")
            self._ledger.wait("writing")
            while ahead:
                behind.add(ahead.popleft().result())
        finally:
            for each in ahead:
                each.cancel()
            wait(ahead)

    def _propose_item(self, task: UnitTask, arrival: Arrival) -> _Proposed:
        self.note.take(task.unit, arrival.position)
        start = time.perf_counter()
        item, reading = arrival.item, arrival.reading
        row = ReceiptRow(
            source_id=item.source_id,
            key=item.key,
            uri=item.uri,
            status="ok",
            unit=task.unit,
            position=arrival.position,
            attempts=task.retry + 1,
        )
        media, proposals = reading.media, []
        if arrival.kept is None and media is None:
            row = replace(row, status=reading.status, reason=reading.reason, error_class=reading.error_class)
        elif media is not None:
            try:
                with self.clock.running((task.unit, arrival.position), item.frames):
                    proposals = self._propose(item, media.frames)
            except BadProposals:
                raise
            except Exception as error:
                media, row = None, _refused(row, error)
        seconds = arrival.seconds + time.perf_counter() - start
        return _Proposed(item, row, media, proposals, seconds, arrival.kept)

    def _encode(self, task: UnitTask, proposed: _Proposed) -> _Mined:
        """The members of a sample, and its rows in the sidecars."""
        start = time.perf_counter()
        item, row, media = proposed.item, proposed.row, proposed.media
        members: list[tuple[str, bytes]] = []
        sidecars: list[Made] = []
        with self.clock.running((task.unit, row.position), item.frames):
            if media is not None:
                try:
                    members, counts = self._members(item, media, proposed.proposals)
                    row = replace(row, license=media.license, **dataclasses.asdict(counts))
                except Exception as error:
                    row = _refused(row, error)
            if proposed.kept is not None:
                sample, members = proposed.kept
                counts = count_sample(sample.record)
                row = replace(row, license=sample.record.origin.license, **dataclasses.asdict(counts))
            if members and self._makers:
                sidecars = self._make_sidecars(item, members)
        seconds = proposed.seconds + time.perf_counter() - start
        return _Mined(item, row, members, sidecars, seconds, proposed.kept is None)

    def _make_sidecars(self, item: WorkItem, members: list[tuple[str, bytes]]) -> list[Made]:
        # Apart from what an item can be blamed for: a sample lies in the shards whatever a sidecar makes of it.
        try:
            with self._device, self._live.stage("making sidecars", item.source_id), self._ledger.model():
                return make_all(self._makers, item.key, members)
        except Exception as error:
            if is_device_failure(error):
                raise DeviceLost(scrub(str(error))) from error
            raise

    def _store(
        self, task: UnitTask, mined: _Mined, writer: ShardWriter, parts: UnitParts, kept: KeptUnit
    ) -> ReceiptRow:
        start = time.perf_counter()
        row = mined.row
        if mined.members:
            # Here, and not where an item's own errors are caught: a full disk or bucket is not the item's fault.
            with self._live.stage("writing", mined.item.source_id):
                shard, offset, size = writer.write(mined.members)
            parts.add(row.key, mined.sidecars)
            if mined.is_new:
                kept.add(mined.members)
            row = replace(row, shard=shard, offset=offset, size=size, checksum=writer.checksum)
        self.note.put(task.unit, row.position)
        self._live.item_done(task.unit, mined.item.frames, row.status == "quarantined")
        return replace(row, seconds=round(mined.seconds + time.perf_counter() - start, 4))

    def _members(
        self, item: WorkItem, media: Media, proposals: list[ProposalSet]
    ) -> tuple[list[tuple[str, bytes]], SampleCounts]:
        """Proposals to negatives to the members of a sample."""
        with self._live.stage("encoding", item.source_id):
            size = media.frames[0].image.shape[:2] if media.amodal else None
            negatives = [
                pseudo_negatives(found, frame.annotations, media.annotated, self.config.negatives.max_iou, size)
                for found, frame in zip(proposals, media.frames)
            ]
            return encode_sample(item, media, proposals, negatives, self._stamp, self._jpeg)

    def _propose(self, item: WorkItem, frames: Sequence[Frame]) -> list[ProposalSet]:
        with self._device, self._live.stage("proposing", item.source_id), self._ledger.model():
            return self._propose_batches(frames)

    def _propose_batches(self, frames: Sequence[Frame]) -> list[ProposalSet]:
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


def _refused(row: ReceiptRow, error: Exception) -> ReceiptRow:
    """The row of an item that mining stumbled over; a device that failed is not its fault."""
    if is_device_failure(error):
        raise DeviceLost(scrub(str(error))) from error
    return replace(row, status="quarantined", reason=reason_of(error), error_class=type(error).__name__)


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
