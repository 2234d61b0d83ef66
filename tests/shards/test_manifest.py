"""The manifest and the totals: what a plain loop over receipts gives, streamed."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.make_dataset import make_dataset, make_item, make_row
from trackmill.pipeline.shards import manifest, receipt_stream, totals
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.receipt_stream import in_order, read_unit, stream_receipts
from trackmill.pipeline.shards.receipts import (
    ADDED_LATER,
    ROW_SCHEMA,
    SHARD_SCHEMA,
    BadReceipt,
    listed_receipts,
    read_receipts,
    rows_table,
    to_parquet,
    write_receipt,
)
from trackmill.pipeline.shards.totals import COUNTS, Totals, totals_of
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

STATUSES = ("ok", "ok", "quarantined", "ok", "skipped")


def fake_rows(unit: int, count: int) -> list[ReceiptRow]:
    """Rows of a unit, in the order in which a retry leaves them: what it saved comes last."""
    rows = []
    for position in range(count):
        item = make_item(("images", "videos")[position % 2], f"u{unit}p{position}")
        status = STATUSES[(unit + position) % len(STATUSES)]
        values: dict[str, object] = {"status": status, "frames": 1 + position % 3, "proposals": unit + position}
        if status == "ok":
            values |= {"shard": f"part-{unit:08d}.tar", "offset": 1024 * position, "size": 1000, "objects": position}
            values |= {"license": ("CC BY 4.0", "unknown")[unit % 2], "negatives": 2, "checksum": -position}
            values |= {"mean_score": position / 16}
        else:
            values |= {"error_class": ("TruncatedMedia", "")[position % 2], "reason": f"no {unit} {position}"}
        rows.append(make_row(item, unit, position, **values))
    return rows[1:] + rows[:1] if unit % 3 == 1 else rows


def fake_receipts(root: str, units: int = 7, rows: int = 11) -> Layout:
    """Receipts without shards, one of them without a row and one without the columns that came later."""
    layout = Layout(root)
    for unit in range(units):
        shards = [ShardInfo(name=f"part-{unit:08d}.tar", num_bytes=20_000 + unit, sha256="0" * 64, num_samples=rows)]
        write_receipt(layout, unit, fake_rows(unit, rows) if unit != 2 else [], shards, "f" * 16)
    return layout


def as_of_an_older_version(layout: Layout, unit: int) -> None:
    """Take the columns away that receipts did not have before."""
    path = layout.receipt(f"part-{unit:08d}.parquet")
    table = pq.read_table(io.BytesIO(read_bytes(path)))
    publish_bytes(path, to_parquet(table.drop_columns(list(ADDED_LATER))))


def plain_manifest(layout: Layout) -> tuple[bytes, bytes]:
    """Both tables as a loop over objects makes them."""
    receipts = read_receipts(layout)
    rows = [row for receipt in receipts for row in sorted(receipt.rows, key=lambda row: row.position)]
    shards = [dataclasses.asdict(shard) for receipt in receipts for shard in receipt.shards]
    return to_parquet(rows_table(rows)), to_parquet(pa.Table.from_pylist(shards, schema=SHARD_SCHEMA))


def plain_totals(layout: Layout) -> Totals:
    """The totals as a loop over objects makes them."""
    receipts = read_receipts(layout)
    rows = [row for receipt in receipts for row in sorted(receipt.rows, key=lambda row: row.position)]
    stored, bad = ([row for row in rows if row.status == status] for status in ("ok", "quarantined"))
    return Totals(
        units=len(receipts),
        items=len(rows),
        statuses=Counter(row.status for row in rows),
        reasons=Counter(row.error_class for row in bad),
        examples=bad[: totals.EXAMPLES],
        counts=Counter({name: sum(getattr(row, name) for row in rows) for name in COUNTS}),
        stored=Counter({name: sum(getattr(row, name) for row in stored) for name in COUNTS}),
        sources=Counter(row.key.partition("-")[0] for row in stored),
        licenses=Counter(row.license for row in stored),
        pictures=Counter(row.shard for row in stored if row.frames == 1),
        clips=Counter(row.shard for row in stored if row.frames > 1),
        longest_clip=max((row.frames for row in stored if row.frames > 1), default=0),
        shards=sum(len(receipt.shards) for receipt in receipts),
        num_bytes=sum(shard.num_bytes for receipt in receipts for shard in receipt.shards),
        fingerprint=receipts[0].fingerprint,
    )


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_small_manifest_has_the_bytes_that_a_loop_over_objects_gives(kind: str, tmp_path: Path) -> None:
    layout = fake_receipts(str(tmp_path / "set") if kind == "local" else f"memory://{tmp_path.name}/set")
    as_of_an_older_version(layout, 1)
    found = write_manifest(layout)
    assert (read_bytes(layout.manifest), read_bytes(layout.manifest_shards)) == plain_manifest(layout)
    assert found == plain_totals(layout)
    names = {entry.name for entry in (tmp_path / "set" / "manifest").glob("*")}
    assert names <= {"items.parquet", "shards.parquet", "made-from.json"}


@pytest.mark.parametrize("rows", [1, 4, 10, 11, 12, 30, 77])
def test_row_groups_are_cut_anywhere_and_hold_the_same_rows(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = fake_receipts(str(tmp_path))
    monkeypatch.setattr(manifest, "GROUP_ROWS", rows)
    write_manifest(layout)
    written, wanted = pq.ParquetFile(layout.manifest), pq.read_table(io.BytesIO(plain_manifest(layout)[0]))
    assert written.read().equals(wanted) and written.schema_arrow.equals(wanted.schema)
    sizes = [written.metadata.row_group(n).num_rows for n in range(written.num_row_groups)]
    assert set(sizes[:-1]) <= {rows} and 0 < sizes[-1] <= rows
    assert {row["position"] for row in written.read().filter(pa.compute.field("unit") == 1).to_pylist()[:1]} == {0}


def test_rows_with_long_texts_are_cut_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = fake_receipts(str(tmp_path))
    monkeypatch.setattr(manifest, "_GROUP_BYTES", 1)
    write_manifest(layout)
    assert pq.ParquetFile(layout.manifest).num_row_groups == 6  # one of seven receipts is empty
    assert pq.read_table(layout.manifest).equals(pq.read_table(io.BytesIO(plain_manifest(layout)[0])))


def test_a_data_set_without_receipts_has_an_empty_manifest(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    assert write_manifest(layout) == Totals()
    assert read_bytes(layout.manifest) == to_parquet(rows_table([]))


def test_totals_of_parts_add_up_whatever_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "EXAMPLES", 3)
    layout = fake_receipts(str(tmp_path))
    receipts = list(stream_receipts(layout))
    whole = plain_totals(layout)
    parts = [totals_of(receipts[a:b]) for a, b in ((0, 1), (1, 5), (5, 7))]
    assert parts[0].merge(parts[1]).merge(parts[2]) == parts[0].merge(parts[1].merge(parts[2])) == whole
    assert Totals().merge(whole) == whole == totals_of(receipts)
    assert list(totals_of(receipts).statuses) == list(whole.statuses), "in the order in which they occur"


def test_sums_beyond_64_bits_are_right(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    rows = [dataclasses.replace(row, proposals=(1 << 62)) for row in fake_rows(0, 5)]
    write_receipt(layout, 0, rows, [], "f" * 16)
    assert totals_of(stream_receipts(layout)).counts["proposals"] == 5 << 62


def test_one_damaged_receipt_is_named_and_the_manifest_stays(tmp_path: Path) -> None:
    layout = fake_receipts(str(tmp_path))
    write_manifest(layout)
    before = Path(layout.manifest).read_bytes()
    path = Path(layout.receipt("part-00000004.parquet"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadReceipt, match=r"part-00000004.parquet: not a readable receipt \(.*delete it and mine again"):
        write_manifest(layout)
    assert Path(layout.manifest).read_bytes() == before
    assert not list(Path(layout.manifest).parent.glob(".tmp*"))


def test_a_receipt_that_vanishes_after_the_listing_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = fake_receipts(str(tmp_path))
    listed = listed_receipts(layout)
    Path(layout.receipt("part-00000003.parquet")).unlink()
    monkeypatch.setattr(receipt_stream, "listed_receipts", lambda layout: listed)
    with pytest.raises(FileNotFoundError, match=r"part-00000003\.parquet"):
        write_manifest(layout)


def test_a_receipt_in_a_store_costs_one_request_and_one_that_was_replaced_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = fake_receipts(f"memory://{tmp_path.name}/set")
    asked: list[tuple[str, int]] = []
    real = read_bytes

    def counted(url: str, offset: int = -1, length: int = -1, max_bytes: int | None = None) -> bytes:
        asked.append((url, offset))
        return real(url, offset, length, max_bytes)

    monkeypatch.setattr(receipt_stream, "read_bytes", counted)
    monkeypatch.setattr("trackmill.pipeline.storage.retries.pause", lambda seconds: None)
    assert len(list(stream_receipts(layout))) == 7
    assert sorted(asked) == [(layout.receipt(f"part-{unit:08d}.parquet"), 0) for unit in range(7)]
    now = listed_receipts(layout)[5]
    for then in (now - 10, now + 10):
        assert read_unit(layout, 5, then).table.equals(read_unit(layout, 5).table)


def test_work_ahead_is_bounded_by_number_and_bytes_and_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    seen = []
    monkeypatch.setattr(receipt_stream, "_AHEAD_BYTES", 100)
    for number in in_order(lambda number: begun.append(number) or number, range(50), lambda number: 30):
        seen.append(number)
        assert max(begun) <= number + 3
    assert seen == list(range(50))
    monkeypatch.setattr(receipt_stream, "_AHEAD", 5)
    begun.clear()
    for number in in_order(lambda number: begun.append(number) or number, range(50), lambda number: 0):
        assert max(begun) <= number + 5


def test_schema_of_a_stream_decides_what_is_read(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path))
    schema = pa.schema([ROW_SCHEMA.field("status")])
    (first, second) = stream_receipts(layout, schema=schema)
    assert first.table.schema.equals(schema) and (len(first.table), len(second.table)) == (5, 2)
