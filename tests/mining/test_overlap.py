"""One unit is published while the next one is mined: order, blame, errors, and where the seconds go."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.make_media import make_pictures
from trackmill.models.proposers import GraphProposer
from trackmill.pipeline.mining import miner as miner_module
from trackmill.pipeline.mining.inline import InlineExecutor
from trackmill.pipeline.mining.miner import Miner
from trackmill.pipeline.mining.prepare import Run, prepare_mining
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.mining.start import start_miner
from trackmill.pipeline.shards.receipts import done_units
from trackmill.pipeline.workers.inflight import peek_note
from trackmill.pipeline.workers.task import StorageFailed, UnitDropped, UnitTask

WAIT_S = 120


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Twelve pictures in four units of three."""
    make_pictures(tmp_path / "in", count=12, height=48, width=64)
    values = {"graph": {"backend": "skimage"}, "shards": {"unit_frames": 3}, "run": {"executor": "inline"}}
    return prepare_mining(mine_config(values, "test"), [str(tmp_path / "in")], str(tmp_path / "out"))


@pytest.fixture
def miner(run: Run) -> Iterator[Miner]:
    made = start_miner(run.job())
    yield made
    made.close()


def task(run: Run, unit: int) -> UnitTask:
    items = run.plan.unit(unit)
    return UnitTask(unit=unit, items=items, positions=list(range(len(items))))


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Begin a call; what comes of it, or its error, is put into the list."""
    came: list[Any] = []

    def do() -> None:
        try:
            came.append(call())
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    return thread, came


class Gate:
    """Holds the receipt of one unit back until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, unit: int) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        write = miner_module.write_receipt

        def held(layout: Any, number: int, *others: Any) -> None:
            if number == unit:
                self.reached.set()
                assert self.open.wait(WAIT_S)
            write(layout, number, *others)

        monkeypatch.setattr(miner_module, "write_receipt", held)


def test_the_next_unit_is_mined_while_one_is_published(run: Run, miner: Miner, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, unit=0)
    first, results = in_thread(lambda: miner.run_unit(task(run, 0)))
    assert gate.reached.wait(WAIT_S)
    result = miner.run_unit(task(run, 1))
    assert done_units(run.layout) == {1}, "unit 0 is not done before its receipt"
    assert peek_note(miner.note.path)[0].publishing
    assert miner.status.publishing[0].items == 3, "its items count meanwhile"
    gate.open.set()
    first.join(WAIT_S)
    assert done_units(run.layout) == {0, 1}
    assert result.times.publishing < result.times.total
    assert results[0].unit == 0 and results[0].times.total > 0
    assert peek_note(miner.note.path) == ()


def test_the_first_item_of_the_next_unit_is_read_before_its_turn(
    run: Run, miner: Miner, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposing, go_on, seen = threading.Event(), threading.Event(), []
    propose, read = GraphProposer.propose, miner._reader.read

    def held(self: GraphProposer, frames: Any) -> Any:
        proposing.set()
        assert go_on.wait(WAIT_S)
        return propose(self, frames)

    wanted = threading.Event()

    def watched(item: Any) -> Any:
        seen.append(item.source_id)
        if item.source_id == task(run, 1).items[0].source_id:
            wanted.set()
        return read(item)

    monkeypatch.setattr(GraphProposer, "propose", held)
    monkeypatch.setattr(miner._reader, "read", watched)
    first, _ = in_thread(lambda: miner.run_unit(task(run, 0)))
    assert proposing.wait(WAIT_S)
    second, _ = in_thread(lambda: miner.run_unit(task(run, 1)))
    assert wanted.wait(WAIT_S), "while the first item of unit 0 is with the proposer"
    assert task(run, 0).items[0].source_id == seen[0]
    go_on.set()
    first.join(WAIT_S)
    second.join(WAIT_S)
    assert done_units(run.layout) == {0, 1}


def test_encoding_of_an_item_overlaps_with_the_proposals_of_the_next(
    run: Run, miner: Miner, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose, encode = GraphProposer.propose, miner_module.encode_sample
    together = threading.Barrier(2, timeout=WAIT_S)
    calls: dict[str, int] = {"propose": 0, "encode": 0}

    def second(self: GraphProposer, frames: Any) -> Any:
        calls["propose"] += 1
        if calls["propose"] == 2:
            together.wait()
        return propose(self, frames)

    def first(*arguments: Any) -> Any:
        calls["encode"] += 1
        if calls["encode"] == 1:
            together.wait()
        return encode(*arguments)

    monkeypatch.setattr(GraphProposer, "propose", second)
    monkeypatch.setattr(miner_module, "encode_sample", first)
    assert miner.run_unit(task(run, 0)).statuses["ok"] == 3


def test_an_error_of_publishing_is_that_of_its_own_unit(
    run: Run, miner: Miner, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, unit=0)
    write = miner_module.write_receipt

    def full(layout: Any, number: int, *others: Any) -> None:
        write(layout, number, *others)
        if number == 0:
            raise OSError(28, "No space left on device", "/out/receipts/part")

    monkeypatch.setattr(miner_module, "write_receipt", full)
    first, came = in_thread(lambda: miner.run_unit(task(run, 0)))
    assert gate.reached.wait(WAIT_S)
    second, others = in_thread(lambda: miner.run_unit(task(run, 1)))
    second.join(WAIT_S)
    gate.open.set()
    first.join(WAIT_S)
    assert isinstance(came[0], StorageFailed) and "unit 0: " in str(came[0])
    assert others[0].unit == 1


def test_a_worker_that_is_to_end_drops_what_it_has_no_time_for(run: Run, miner: Miner) -> None:
    miner.run_unit(task(run, 0))
    miner.turns.drop_after(0)
    with pytest.raises(UnitDropped, match=r"unit 1: dropped with 3 of its items left"):
        miner.run_unit(task(run, 1))
    assert done_units(run.layout) == {0}
    assert {path.name for path in Path(run.layout.shards).iterdir()} == {"part-00000000.tar"}, "no scratch file"
    assert peek_note(miner.note.path) == ()


def test_it_asks_for_more_when_little_is_left_and_not_before(
    run: Run, miner: Miner, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose, steps, go_on = GraphProposer.propose, threading.Semaphore(0), threading.Semaphore(0)

    def slow(self: GraphProposer, frames: Any) -> Any:
        steps.release()
        assert go_on.acquire(timeout=WAIT_S)
        return propose(self, frames)

    monkeypatch.setattr(GraphProposer, "propose", slow)
    monkeypatch.setattr("trackmill.pipeline.workers.turns._AHEAD_S", 0.0)
    asked = threading.Event()
    thread, _ = in_thread(lambda: miner.run_unit(task(run, 0)))
    in_thread(lambda: (miner.turns.wait_until_nearly_done(0), asked.set()))
    assert steps.acquire(timeout=WAIT_S)
    assert not asked.is_set(), "three items are left"
    go_on.release()
    assert steps.acquire(timeout=WAIT_S)
    assert asked.wait(WAIT_S), "two"
    for _ in range(2):
        go_on.release()
    thread.join(WAIT_S)


def test_in_one_process_all_units_are_done_and_the_bytes_are_those_of_one_after_the_other(run: Run) -> None:
    results = list(InlineExecutor(run.job(), lambda states: None).run(task(run, unit) for unit in range(4)))
    assert sorted(result.unit for result in results) == [0, 1, 2, 3]
    bytes_of = {path.name: path.read_bytes() for path in Path(run.layout.shards).iterdir()}
    alone = start_miner(run.job())
    for unit in range(4):
        alone.run_unit(replace(task(run, unit), serial=True))
    alone.close()
    assert {path.name: path.read_bytes() for path in Path(run.layout.shards).iterdir()} == bytes_of


def test_a_job_that_is_asked_to_stop_finishes_what_it_has_time_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One unit is done; what is in hand after it cannot be."""
    executor = InlineExecutor(run.job(), lambda states: None)
    executor._grace_s = 1.0
    seen: list[str] = []
    propose = GraphProposer.propose

    def slow(self: GraphProposer, frames: Any) -> Any:
        seen.append("item")
        if len(seen) == 5:  # the second item of unit 1
            while not done_units(run.layout):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.5)
        return propose(self, frames)

    monkeypatch.setattr(GraphProposer, "propose", slow)
    with caplog.at_level("INFO", "trackmill"), pytest.raises(KeyboardInterrupt):
        list(executor.run(task(run, unit) for unit in range(4)))
    assert done_units(run.layout) == {0}
    assert "in hand not finished" in caplog.text
    assert "speed of light" in caplog.text
    assert not list(Path(run.layout.shards).glob(".tmp*"))
