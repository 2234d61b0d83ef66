"""The miner without Ray: what is an item's fault and what is not, and workers whose libraries differ."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.make_media import make_pictures
from trackmill.models.proposers import GraphProposer
from trackmill.pipeline.mining import miner as miner_module
from trackmill.pipeline.mining.inline import InlineExecutor
from trackmill.pipeline.mining.miner import is_device_failure
from trackmill.pipeline.mining.prepare import Run, prepare_mining
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.mining.start import start_miner
from trackmill.pipeline.mining.unit import LibrariesDiffer
from trackmill.pipeline.shards.receipts import read_receipts
from trackmill.pipeline.shards.verify import verify
from trackmill.pipeline.workers.inflight import peek_note
from trackmill.pipeline.workers.task import DeviceLost, StorageFailed, UnitTask
from trackmill.schemas.media import Frame, ProposalSet
from trackmill.schemas.receipt import ReceiptRow


@pytest.fixture
def run(tmp_path: Path) -> Run:
    make_pictures(tmp_path / "in", count=4)
    values = {"graph": {"backend": "skimage"}, "run": {"executor": "inline"}}
    return prepare_mining(mine_config(values, "test"), [str(tmp_path / "in")], str(tmp_path / "out"))


def task(run: Run, **changes: object) -> UnitTask:
    items = run.plan.unit(0)
    return replace(UnitTask(unit=0, items=items, positions=list(range(len(items)))), **changes)


def rows(run: Run) -> list[ReceiptRow]:
    return [row for receipt in read_receipts(run.layout) for row in receipt.rows]


def test_a_unit_from_reading_to_receipt(run: Run) -> None:
    result = start_miner(run.job()).run_unit(task(run))
    assert result.statuses == {"ok": 4, "quarantined": 0, "skipped": 0}
    assert [row.position for row in rows(run)] == [0, 1, 2, 3]
    assert all(row.offset % 512 == 0 and row.size % 512 == 0 for row in rows(run))


def test_serial_and_read_ahead_give_the_same_bytes(run: Run) -> None:
    shard = Path(run.layout.shards) / "part-00000000.tar"
    start_miner(run.job()).run_unit(task(run))
    before = shard.read_bytes()
    start_miner(run.job()).run_unit(task(run, serial=True))
    assert shard.read_bytes() == before


def test_items_may_overlap_and_the_bytes_stay_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Path(run.layout.shards) / "part-00000000.tar"
    start_miner(run.job()).run_unit(task(run))
    before = shard.read_bytes()
    propose, in_hand, together = GraphProposer.propose, [], threading.Barrier(2, timeout=60)

    def slow(self: GraphProposer, frames: Sequence[Frame]) -> list[ProposalSet]:
        together.wait()  # passes only when two items are proposed for at once
        in_hand.extend(each.positions for each in peek_note(worker.note.path))
        return propose(self, frames)

    monkeypatch.setattr(GraphProposer, "concurrency", 2)
    monkeypatch.setattr(GraphProposer, "propose", slow)
    worker = start_miner(run.job())
    worker.run_unit(task(run))
    assert shard.read_bytes() == before
    assert any(len(positions) >= 2 for positions in in_hand), "all of them are suspects, should the worker die"
    assert peek_note(worker.note.path) == ()


def test_overlapping_items_after_a_death_come_one_at_a_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    propose, running = GraphProposer.propose, []

    def watched(self: GraphProposer, frames: Sequence[Frame]) -> list[ProposalSet]:
        running.append(sum(len(each.positions) for each in peek_note(worker.note.path)))
        return propose(self, frames)

    monkeypatch.setattr(GraphProposer, "concurrency", 2)
    monkeypatch.setattr(GraphProposer, "propose", watched)
    worker = start_miner(run.job())
    worker.run_unit(task(run, serial=True))
    assert running == [1, 1, 1, 1]


def test_an_overlapping_item_that_fails_is_alone_in_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    propose, order = GraphProposer.propose, [item.source_id for item in task(run).items]
    calls: list[int] = []

    def stumble(self: GraphProposer, frames: Sequence[Frame]) -> list[ProposalSet]:
        calls.append(1)
        if len(calls) == 1:
            raise FloatingPointError("nan in the middle")
        return propose(self, frames)

    monkeypatch.setattr(GraphProposer, "concurrency", 2)
    monkeypatch.setattr(GraphProposer, "propose", stumble)
    start_miner(run.job()).run_unit(task(run))
    assert sorted(row.status for row in rows(run)) == ["ok", "ok", "ok", "quarantined"]
    assert [row.source_id for row in rows(run)] == order

    def lost(self: GraphProposer, frames: Sequence[Frame]) -> list[ProposalSet]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(GraphProposer, "propose", lost)
    with pytest.raises(DeviceLost):
        start_miner(run.job()).run_unit(task(run))


def test_poisoned_items_are_not_touched(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    worker = start_miner(run.job())
    read = worker._reader.read
    monkeypatch.setattr(worker._reader, "read", lambda item: (seen.append(item.source_id), read(item))[1])
    worker.run_unit(task(run, poisoned={1: "two workers died"}))
    assert len(seen) == 3
    assert [(row.status, row.error_class) for row in rows(run)][1] == ("quarantined", "WorkerDied")


def test_a_try_that_fills_fewer_shards_leaves_none_of_the_others(tmp_path: Path) -> None:
    """A worker that died after publishing some rolled shards; the next try leaves an item out."""
    make_pictures(tmp_path / "in", count=4)
    values = {"graph": {"backend": "skimage"}, "shards": {"max_samples": 1}}
    run = prepare_mining(mine_config(values, "test"), [str(tmp_path / "in")], str(tmp_path / "out"))
    start_miner(run.job()).run_unit(task(run))
    assert len(list(Path(run.layout.shards).iterdir())) == 4
    start_miner(run.job()).run_unit(task(run, poisoned={1: "two workers died"}))
    assert {path.name for path in Path(run.layout.shards).iterdir()} == {row.shard for row in rows(run) if row.shard}
    assert verify(run.layout.root) == []


def test_a_proposer_that_stumbles_over_one_frame_quarantines_one_item(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose = GraphProposer.propose
    calls = []

    def stumble(self: GraphProposer, frames: Sequence[Frame]) -> list[ProposalSet]:
        calls.append(1)
        if len(calls) == 2:
            raise FloatingPointError("nan in the middle")
        return propose(self, frames)

    monkeypatch.setattr(GraphProposer, "propose", stumble)
    start_miner(run.job()).run_unit(task(run))
    assert [row.status for row in rows(run)] == ["ok", "quarantined", "ok", "ok"]
    assert rows(run)[1].reason == "nan in the middle"


def test_a_lost_device_is_no_fault_of_the_items(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    propose = GraphProposer.propose
    calls = []

    def lost(self: GraphProposer, frames: Sequence[Frame]) -> list[ProposalSet]:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return propose(self, frames)

    monkeypatch.setattr(GraphProposer, "propose", lost)
    with pytest.raises(DeviceLost):
        start_miner(run.job()).run_unit(task(run))
    assert rows(run) == []
    assert list(Path(run.layout.shards).iterdir()) == [], "no scratch file is left"


def test_memory_of_the_device_running_out_is_not_a_lost_device() -> None:
    assert not is_device_failure(RuntimeError("CUDA error: out of memory"))


def test_a_full_disk_is_no_fault_of_the_items(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, *_: object, **__: object) -> None:
            self.shards: list[object] = []

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def remove_leftovers(self) -> None:
            pass

        def write(self, members: object) -> None:
            raise OSError(28, "No space left on device", "/out/shards/part.tar")

    monkeypatch.setattr(miner_module, "ShardWriter", Full)
    monkeypatch.setattr("trackmill.pipeline.workers.output_pause.FIRST_PAUSE_S", 0.01)
    with pytest.raises(StorageFailed, match=r"output: /out/shards/part.tar: no space is left on its disk$"):
        list(InlineExecutor(run.job(), lambda states: None).run(iter([task(run)])))
    assert rows(run) == []


def test_a_worker_with_another_library_refuses(run: Run) -> None:
    job = replace(run.job(), libraries={**run.libraries, "pillow": "1.1.7"})
    with pytest.raises(LibrariesDiffer, match=r"pillow .* \(driver: 1\.1\.7\)"):
        start_miner(job)


def test_a_proposer_that_wants_more_items_than_there_are_hands_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GraphProposer, "concurrency", 7)
    with pytest.raises(ValueError, match="concurrency is 7, should be 1 to 6"):
        start_miner(run.job())
