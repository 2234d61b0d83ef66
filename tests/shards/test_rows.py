"""Rows that are read again when they are wanted: the same as if all of them were held as objects."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from tests.make_dataset import make_dataset, make_item, write_plan
from tests.shards.test_manifest import as_of_an_older_version, fake_receipts, fake_rows, plain_totals
from trackmill.pipeline.inspect.selection import select_rows
from trackmill.pipeline.inspect.statistics import collect
from trackmill.pipeline.shards import manifest, reader, rows
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.reader import UnknownKey, open_dataset, read_sample
from trackmill.pipeline.shards.receipts import BadReceipt, read_receipts, write_receipt
from trackmill.pipeline.shards.unfinished import unfinished, unfinished_units
from trackmill.pipeline.shards.verify import verify
from trackmill.schemas.receipt import ReceiptRow


@pytest.fixture(params=["in memory", "read again"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "read again":
        monkeypatch.setattr(rows, "HELD_ROWS", 0)


def plain_rows(layout: Layout) -> list[ReceiptRow]:
    return [row for receipt in read_receipts(layout) for row in sorted(receipt.rows, key=lambda row: row.position)]


@pytest.mark.parametrize("recorded", ["receipts", "manifest"])
def test_rows_are_those_of_a_loop_over_receipts(
    recorded: str, held: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = fake_receipts(str(tmp_path))
    as_of_an_older_version(layout, 1)
    plain = plain_rows(layout)
    totals = plain_totals(layout)
    if recorded == "manifest":
        monkeypatch.setattr(manifest, "GROUP_ROWS", 9)
        write_manifest(layout)
        for path in (tmp_path / "receipts").iterdir():
            path.unlink()
        totals = dataclasses.replace(totals, units=0, fingerprint="")  # which a manifest does not have
    dataset = open_dataset(layout.root)
    stored = [row for row in plain if row.status == "ok"]
    for found, wanted in ((dataset.rows, plain), (dataset.stored, stored)):
        assert list(found) == wanted and len(found) == len(wanted) > 20
        assert [found[n] for n in range(-len(wanted), len(wanted))] == wanted * 2
        assert found[3:20:4] == wanted[3:20:4] and found[:0] == []
        assert found.take([17, 2, 2, 16]) == [wanted[n] for n in (17, 2, 2, 16)]
        with pytest.raises(IndexError):
            found[len(wanted)]
        assert select_rows(found, 7) == select_rows(wanted, 7) and select_rows(found, 999) == wanted
    assert dataset.totals == totals
    for shard in dataset.shards:
        assert list(dataset.rows_of(shard.name)) == [row for row in stored if row.shard == shard.name]
    assert dataset.find(plain[40].key) == plain[40] and dataset.find("images") is None
    with pytest.raises(UnknownKey, match=f"did you mean {plain[0].key}"):
        read_sample(dataset, plain[0].key[:-2])


def test_statistics_of_rows_are_those_of_a_loop(held: None, tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path))
    plain, found = plain_rows(layout), collect(open_dataset(layout.root))
    lengths = sorted(row.size for row in plain if row.status == "ok")
    assert (found.samples_stored, found.samples_read) == (5, 5)
    assert found.statuses == Counter(row.status for row in plain) and found.quarantined == {"TruncatedMedia": 1}
    assert (found.bytes_stored, found.bytes_per_sample_max) == (sum(lengths), lengths[-1])
    assert found.bytes_per_sample_median == lengths[2]
    path = Path(layout.receipt("part-00000001.parquet"))
    path.unlink()
    four = collect(open_dataset(layout.root))
    lengths = sorted(row.size for row in plain_rows(layout) if row.status == "ok")
    assert four.bytes_per_sample_median == int((lengths[1] + lengths[2]) / 2)


def test_what_changes_while_it_is_looked_at_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "HELD_ROWS", 0)
    layout = fake_receipts(str(tmp_path))
    dataset = open_dataset(layout.root)
    write_receipt(layout, 4, fake_rows(4, 3), [], "f" * 16)
    with pytest.raises(BadReceipt, match=r"part-00000004\.parquet: had 11 rows and has 3 now"):
        list(dataset.rows)
    Path(layout.receipt("part-00000004.parquet")).unlink()
    with pytest.raises(FileNotFoundError, match=r"part-00000004\.parquet"):
        list(dataset.stored)


def test_rows_that_contradict_each_other_are_named_in_their_order(held: None, tmp_path: Path) -> None:
    layout = fake_receipts(str(tmp_path), units=4)
    plain = {unit: fake_rows(unit, 11) for unit in range(4)}
    twice = dataclasses.replace(plain[3][0], source_id=plain[0][0].source_id, unit=3)
    same_key = dataclasses.replace(plain[3][1], key=plain[0][4].key)
    strange = dataclasses.replace(plain[3][2], status="lost")  # type: ignore[arg-type]
    elsewhere = next(row for row in plain[3][4:] if row.status == "ok")
    placed = next(row for row in plain[3][4:] if row.status == "skipped")
    changed = {
        elsewhere.position: dataclasses.replace(elsewhere, shard="part-00000009.tar"),
        placed.position: dataclasses.replace(placed, shard="part-00000003.tar", unit=7),
    }
    altered = [twice, same_key, strange, *(changed.get(row.position, row) for row in plain[3][3:])]
    write_receipt(layout, 3, altered, read_receipts(layout)[3].shards, "f" * 16)
    faults = [str(fault) for fault in verify(layout.root) if "is missing" not in str(fault)]
    wanted = [
        f"{twice.source_id!r} has a row twice: {twice.status}; ok in part-00000000.tar",
        "its key is not unique: a row has it as well",
        "status 'lost' is none of ok, quarantined, skipped",
        *(
            said
            for _, said in sorted(
                [
                    (elsewhere.position, "its receipt does not list the shard it is said to be in"),
                    (placed.position, "is skipped and yet has a place in a shard"),
                ]
            )
        ),
        "its row is of unit 7",
    ]
    assert len(faults) == len(wanted)
    assert all(fault.endswith(said) for fault, said in zip(faults, wanted)), faults


def test_what_is_planned_and_not_done_is_counted(held: None, tmp_path: Path) -> None:
    layout = fake_receipts(str(tmp_path), units=3)
    done = [(make_item("images", "a", row.source_id), row.unit) for row in plain_rows(layout)]
    assert unfinished(open_dataset(layout.root)) == []
    write_plan(layout, done)
    assert unfinished(open_dataset(layout.root)) == [] and unfinished_units(layout) == (0, 2)
    more = [(make_item("images", f"new{n}"), 5 + n // 2) for n in range(3)]
    write_plan(layout, [*done, *more], "plan-001.parquet")
    (said,) = unfinished(open_dataset(layout.root))
    assert said.startswith("3 planned items in 2 units have no receipt yet") and unfinished_units(layout) == (2, 4)


def test_tars_alone_are_indexed_again(held: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = make_dataset(str(tmp_path))
    recorded = [(row.key, row.shard, row.offset, row.size) for row in open_dataset(layout.root).stored]
    calls: list[str] = []
    real = reader.index_shard
    monkeypatch.setattr(reader, "index_shard", lambda url, *rest: calls.append(url) or real(url, *rest))
    folder = open_dataset(layout.shards)
    assert calls == []
    assert sorted((row.key, row.shard, row.offset, row.size) for row in folder.rows) == sorted(recorded)
    assert [folder.rows[n].key for n in range(5)] == [row.key for row in folder.stored]
    assert folder.totals.items == folder.totals.statuses["ok"] == 5 and folder.totals.num_bytes > 0
