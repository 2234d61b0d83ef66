"""What is kept of a unit that was not finished: the next try goes on from it, to the same bytes, believing nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.make_media import make_pictures
from trackmill.models.proposers import GraphProposer
from trackmill.pipeline.mining.kept import sweep_kept
from trackmill.pipeline.mining.prepare import Run, prepare_mining
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.mining.start import start_miner
from trackmill.pipeline.shards.receipts import read_receipts
from trackmill.pipeline.shards.verify import verify
from trackmill.pipeline.workers.task import UnitDropped, UnitTask

KEEP_EACH = 1e-9


def prepare(tmp_path: Path, name: str, **run: object) -> Run:
    values = {"graph": {"backend": "skimage"}, "run": {"executor": "inline", "keep_s": KEEP_EACH, **run}}
    return prepare_mining(mine_config(values, "test"), [str(tmp_path / "in")], str(tmp_path / name))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    make_pictures(tmp_path / "in", count=5, height=48, width=64)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    return prepare(tmp_path, "out")


def task(run: Run, **changes: object) -> UnitTask:
    items = run.plan.unit(0)
    return replace(UnitTask(unit=0, items=items, positions=list(range(len(items)))), **changes)


class Counting:
    """Counts what is asked of the proposer; at one item the worker is told to end, or a unit is broken off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.at = 0
        self.then: Any = None
        propose = GraphProposer.propose

        def counted(proposer: GraphProposer, frames: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                self.then()
            return propose(proposer, frames)

        monkeypatch.setattr(GraphProposer, "propose", counted)


@pytest.fixture
def proposer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    yield Counting(monkeypatch)


def break_off(run: Run, proposer: Counting, after: int = 3, **changes: object) -> None:
    """A worker is told to end while it is at an item."""
    worker = start_miner(run.job())
    proposer.calls, proposer.at = 0, after
    proposer.then = lambda: worker.turns.drop_after(0)
    with pytest.raises(UnitDropped):
        worker.run_unit(task(run, **changes))
    worker.close()


def pieces(run: Run) -> list[Path]:
    return sorted(Path(run.layout.root, "work").glob("*/*"))


def shard(run: Run) -> bytes:
    return Path(run.layout.shards, "part-00000000.tar").read_bytes()


def rows(run: Run) -> list[Any]:
    return [replace(row, seconds=0) for receipt in read_receipts(run.layout) for row in receipt.rows]


def finish(run: Run, proposer: Counting) -> int:
    """Do the unit; how many items were mined for it."""
    proposer.calls, proposer.at = 0, 0
    worker = start_miner(run.job())
    worker.run_unit(task(run))
    worker.close()
    return proposer.calls


def undisturbed(tmp_path: Path, proposer: Counting) -> Run:
    other = prepare(tmp_path, "undisturbed", keep_s=0)
    assert finish(other, proposer) == 5
    return other


def test_the_next_try_goes_on_and_the_bytes_are_those_of_one_try(run: Run, tmp_path: Path, proposer: Counting) -> None:
    break_off(run, proposer)
    assert pieces(run)
    left = finish(run, proposer)
    assert left == 2, "three were kept"
    other = undisturbed(tmp_path, proposer)
    assert shard(run) == shard(other)
    assert rows(run) == rows(other)
    assert not Path(run.layout.root, "work", "part-00000000").exists(), "gone with the receipt"
    assert verify(run.layout.root) == []


def test_a_unit_that_is_done_quickly_writes_nothing_of_the_kind(tmp_path: Path, run: Run, proposer: Counting) -> None:
    quick = prepare(tmp_path, "quick", keep_s=3600)
    break_off(quick, proposer)
    assert not Path(quick.layout.root, "work").exists()
    assert finish(quick, proposer) == 5


def test_what_is_damaged_or_not_of_this_run_is_mined(run: Run, tmp_path: Path, proposer: Counting) -> None:
    break_off(run, proposer)
    for piece in pieces(run):
        data = bytearray(piece.read_bytes())
        data[700] ^= 1
        piece.write_bytes(data)
    assert finish(run, proposer) == 5, "the names tell the SHA-256"
    assert shard(run) == shard(undisturbed(tmp_path, proposer))


def test_a_sample_of_another_run_is_mined(run: Run, tmp_path: Path, proposer: Counting) -> None:
    other = prepare_mining(
        mine_config({"graph": {"backend": "skimage"}, "read": {"longest_side": 32}, "run": {"keep_s": KEEP_EACH}}, "t"),
        [str(tmp_path / "in")],
        str(tmp_path / "other"),
    )
    break_off(other, proposer)
    Path(run.layout.root, "work", "part-00000000").mkdir(parents=True)
    for piece in pieces(other):
        (Path(run.layout.root, "work", "part-00000000") / piece.name).write_bytes(piece.read_bytes())
    assert finish(run, proposer) == 5, "its fingerprint is another one"


@pytest.mark.parametrize("data", [b"", b"x" * 2048, b"\0" * 1024], ids=["empty", "no tar", "no sample"])
def test_a_piece_that_is_none_is_no_trouble(run: Run, proposer: Counting, data: bytes) -> None:
    folder = Path(run.layout.root, "work", "part-00000000")
    folder.mkdir(parents=True)
    (folder / f"piece-{hashlib.sha256(data).hexdigest()}.tar").write_bytes(data)
    (folder / "something.else").write_bytes(data)
    assert finish(run, proposer) == 5
    assert not folder.exists()


def test_pieces_of_two_tries_at_once_do_no_harm(run: Run, tmp_path: Path, proposer: Counting) -> None:
    """A worker that was thought dead goes on beside its successor."""
    break_off(run, proposer, after=2)
    saved = {piece.name: piece.read_bytes() for piece in pieces(run)}
    for piece in pieces(run):
        piece.unlink()
    break_off(run, proposer, after=4)
    for name, data in saved.items():
        (Path(run.layout.root, "work", "part-00000000") / name).write_bytes(data)
    assert finish(run, proposer) == 1
    assert shard(run) == shard(undisturbed(tmp_path, proposer))


def test_an_item_that_is_left_out_is_not_taken_from_what_is_kept(run: Run, proposer: Counting) -> None:
    break_off(run, proposer)
    worker = start_miner(run.job())
    position = next(place for place, item in enumerate(run.plan.unit(0)) if not item.uri.endswith("bad.jpg"))
    worker.run_unit(task(run, poisoned={position: "two workers died"}))
    worker.close()
    assert rows(run)[position].error_class == "WorkerDied"


def test_what_a_killed_worker_left_behind_its_receipt_is_swept(run: Run, proposer: Counting) -> None:
    break_off(run, proposer)
    saved = {piece: piece.read_bytes() for piece in pieces(run)}
    sweep_kept(run.layout)
    assert pieces(run), "the unit is not done"
    finish(run, proposer)
    for piece, data in saved.items():
        piece.parent.mkdir(exist_ok=True)
        piece.write_bytes(data)
    sweep_kept(run.layout)
    assert not pieces(run) and not Path(run.layout.work).exists()
    unfinished = Path(run.layout.work) / "part-00000000" / ".tmp-of-a-killed-writer"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    other = Path(run.layout.work) / "part-00000007" / unfinished.name
    other.parent.mkdir()
    other.touch()
    sweep_kept(run.layout)
    assert not unfinished.exists() and other.exists(), "unit 7 has no receipt"


def test_a_place_where_nothing_can_be_kept_costs_the_unit_nothing(
    run: Run, proposer: Counting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(url: str, data: bytes) -> None:
        raise OSError(13, "Permission denied", url)

    monkeypatch.setattr("trackmill.pipeline.mining.kept.publish_bytes", refused)
    assert finish(run, proposer) == 5
    assert caplog.text.count("samples of an unfinished unit cannot be kept") == 1
    assert verify(run.layout.root) == []
