"""What one item may cost: memory, time and its reader's life, and nobody else pays."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.make_media import make_pictures
from tests.runs import mine
from trackmill.pipeline.isolation.limits import Limits, limited
from trackmill.pipeline.mining.prepare import Run, prepare_mining
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.mining.start import start_miner
from trackmill.pipeline.shards.receipts import read_receipts
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.workers.decisions import Decisions
from trackmill.pipeline.workers.inflight import InFlight
from trackmill.pipeline.workers.item_clock import ItemClock
from trackmill.pipeline.workers.task import UnitTask
from trackmill.schemas.media import WorkItem
from trackmill.schemas.receipt import ReceiptRow

FILES = {"a": "good", "b": "eat in small pieces", "c": "good", "d": "crash", "e": "hang", "f": "good"}


def mined(run: Run) -> dict[str, ReceiptRow]:
    """Rows of the receipt of all items, done at once, by the name of the file."""
    items = run.plan.unit(0)
    miner = start_miner(run.job())
    miner.run_unit(UnitTask(unit=0, items=items, positions=list(range(len(items)))))
    miner.close()
    rows = [row for receipt in read_receipts(run.layout) for row in receipt.rows]
    return {Path(row.uri).stem: row for row in rows}


def test_an_item_that_costs_too_much_is_quarantined_by_the_limits_name(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, what in FILES.items():
        (folder / f"{name}.odd").write_text(what)
    (folder / "g.odd").write_text(f"crash once, {tmp_path / 'marker'}")
    values = {
        "source": "tests.mining.hostile_source:Hostile",
        "run": {"executor": "inline", "item_memory_bytes": 300 << 20, "item_timeout_s": 3},
    }
    rows = mined(prepare_mining(mine_config(values, "test"), [str(folder)], str(tmp_path / "out")))
    assert {name: row.status for name, row in rows.items()} == {
        name: "ok" if what == "good" else "quarantined" for name, what in FILES.items()
    } | {"g": "ok"}
    assert rows["b"].error_class == "MemoryLimit" and "`run.item_memory_bytes` = 314572800" in rows["b"].reason
    assert rows["d"].error_class == "ReaderDied" and "crashed (SIGABRT)" in rows["d"].reason
    assert rows["e"].error_class == "TimeLimit" and "`run.item_timeout_s` = 3;" in rows["e"].reason
    assert all(row.reason.startswith(row.source_id) for row in rows.values() if row.status == "quarantined")


def test_apart_or_here_the_bytes_are_the_same(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=3)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    shards, reasons = [], []
    for isolate in (True, False):
        run = prepare_mining(
            mine_config({"run": {"executor": "inline", "isolate": isolate}}, "test"),
            [str(tmp_path / "in")],
            str(tmp_path / f"out-{isolate}"),
        )
        reasons.append(mined(run)["bad"].reason)
        shards.append((Path(run.layout.shards) / "part-00000000.tar").read_bytes())
    assert shards[0] == shards[1]
    assert reasons[0] == reasons[1]


def test_limits_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=1)
    fingerprints = {
        prepare_mining(
            mine_config({"run": {"isolate": isolate}}, "test"), [str(tmp_path / "in")], "memory://o"
        ).fingerprint
        for isolate in (True, False)
    }
    assert len(fingerprints) == 1


def _probe(uri: str) -> str:
    if uri.endswith("crash"):
        os.abort()
    return f"{uri}: fine"


def test_a_file_that_kills_who_looks_into_it_costs_itself() -> None:
    uris = ["a", "b/crash", "c"]
    with limited(Limits(seconds=60)):
        found = list(probe_files(uris, _probe, "files", lambda reason: f"refused: {reason}"))
    assert found == ["a: fine", "refused: the process that read it crashed (SIGABRT)", "c: fine"]


def test_what_lies_in_this_process_is_looked_at_here() -> None:
    uris = ["memory://a", "memory://b"]
    with limited(Limits(seconds=60)):
        assert list(probe_files(uris, lambda uri: os.getpid(), "files", lambda reason: 0)) == [os.getpid()] * 2


def test_a_clock_knows_which_item_is_overdue() -> None:
    clock = ItemClock(0.05)
    with clock.running(4, frames=10_000), clock.running(7, frames=1):
        assert clock.overdue() is None
        time.sleep(0.1)
        assert clock.overdue() == 7, "the other may take 500 s"
    assert clock.overdue() is None


def test_what_stood_still_with_its_whole_process_is_not_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP, or a virtual machine that is moved: the item was given no time either."""
    now, sleeps = [0.0], [25.0, *[1.0] * 60]

    def sleep(seconds: float) -> None:
        now[0] += sleeps.pop(0)

    monkeypatch.setattr(
        "trackmill.pipeline.workers.item_clock.time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    )
    clock, ended = ItemClock(20), []
    with clock.running(4, frames=1):
        clock._watch(ended.append)
    assert ended == [4]
    assert now[0] == 24 + 21, "the standstill, and its whole time"


def test_no_limit_on_time_means_none() -> None:
    clock = ItemClock(0)
    with clock.running(1, frames=1):
        time.sleep(0.01)
        assert clock.overdue() is None


def test_an_item_that_a_worker_ended_itself_for_is_left_out_at_once(caplog: pytest.LogCaptureFixture) -> None:
    items = [WorkItem(source="images", source_id=f"{n}.jpg", key=f"{n}", uri=f"{n}.jpg") for n in range(3)]
    decisions = Decisions([UnitTask(unit=0, items=items, positions=[0, 1, 2])], 1, 0)
    (number,) = decisions.orders().start
    decisions.started(number, "w0")
    decisions.orders()
    decisions.died(number, RuntimeError("gone"), (InFlight(0, frozenset({0, 1}), overdue=1),))
    (number,) = decisions.orders().start
    decisions.started(number, "w1")
    ((_, again),) = decisions.orders().give
    assert list(again.poisoned) == [1] and again.overdue == {1}
    assert not again.serial, "nobody else is suspected"
    assert "1.jpg: mining it takes longer than `run.item_timeout_s` allows" in caplog.text


def test_in_one_process_an_item_that_hangs_ends_the_job_and_is_named(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=1)
    Image.new("RGB", (64, 48)).save(tmp_path / "in" / "black.png")
    arguments = ["--input", tmp_path / "in", "--output", tmp_path / "out", "--executor", "inline"]
    arguments += ["--proposer", "tests.mining.hanging_proposer:Hanging", "--set", "run.item_timeout_s=3"]
    printed = mine(*arguments, expect=1)
    assert "black.png: mining it takes longer than `run.item_timeout_s` allows" in printed
    assert "--executor ray ends the worker" in printed


def test_shards_that_are_gone_are_named_when_a_finished_run_is_run_again(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", count=1)
    arguments = ["--input", tmp_path / "in", "--output", tmp_path / "out", "--executor", "inline"]
    assert "missing or of another length" not in mine(*arguments)
    (shard,) = (tmp_path / "out" / "shards").glob("*.tar")
    shard.write_bytes(shard.read_bytes()[:-512])
    printed = mine(*arguments)
    assert f"1 of 1 shard is missing or of another length than its receipt says, such as {shard.name}" in printed
