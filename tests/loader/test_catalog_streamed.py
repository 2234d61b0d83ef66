"""Catalogs of receipts that are read a few at a time: the same as of a loop over all of them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.shards.test_manifest import as_of_an_older_version, fake_receipts
from trackmill.pipeline.loader import catalog as module
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.shards import manifest
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.receipts import BadReceipt, read_receipts, write_receipt
from trackmill.schemas.receipt import ReceiptRow, ShardInfo


def plain_rows(layout: Layout, needs_boxes: bool) -> list[ReceiptRow]:
    """Samples in the order of shards and offsets."""
    rows = [row for receipt in read_receipts(layout) for row in receipt.rows if row.status == "ok"]
    return sorted(
        (row for row in rows if not needs_boxes or row.objects + row.proposals > 0),
        key=lambda row: (row.shard, row.offset),
    )


def plain_fingerprint(layout: Layout, rows: list[ReceiptRow]) -> str:
    """As `Catalog.fingerprint` is defined; runs resume by it, so it must stay what it was."""
    shards: dict[str, ShardInfo] = {s.name: s for receipt in read_receipts(layout) for s in receipt.shards}
    used = sorted({row.shard for row in rows})
    digest = hashlib.sha256(orjson.dumps([(n, shards[n].num_bytes, shards[n].sha256) for n in used]))
    first = [0]
    for name in used:
        first.append(first[-1] + sum(row.shard == name for row in rows))
    for column in (first, [row.offset for row in rows], [row.size for row in rows]):
        digest.update(np.array(column, "<i8").tobytes())
    return digest.hexdigest()


def check(catalog: Catalog, layout: Layout, needs_boxes: bool, rows: list[ReceiptRow], fingerprint: str) -> None:
    assert catalog.fingerprint == fingerprint and len(catalog) == len(rows)
    for name, wanted in (
        ("offsets", [row.offset for row in rows]),
        ("sizes", [row.size for row in rows]),
        ("frames", [row.frames for row in rows]),
        ("annotated", [row.objects > 0 for row in rows]),
        ("checksums", [row.checksum for row in rows]),
    ):
        assert getattr(catalog, name).tolist() == wanted, name
    assert [catalog.shards[int(n)].name for n in catalog.shard_of(np.arange(len(rows)))] == [row.shard for row in rows]
    assert [catalog.key(n) for n in range(len(rows))] == [row.key for row in rows]
    kinds = {name: getattr(catalog, name).dtype.str for name in ("offsets", "sizes", "frames", "annotated")}
    assert kinds == {"offsets": "<i8", "sizes": "<i8", "frames": "<i4", "annotated": "|b1"}


@pytest.mark.parametrize("needs_boxes", [True, False])
@pytest.mark.parametrize("recorded", ["receipts", "manifest"])
def test_catalog_is_that_of_a_loop(
    recorded: str, needs_boxes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_CHECKED", 5)
    layout = fake_receipts(str(tmp_path))
    as_of_an_older_version(layout, 1)
    rows = plain_rows(layout, needs_boxes)
    fingerprint = plain_fingerprint(layout, rows)
    if recorded == "manifest":
        monkeypatch.setattr(manifest, "GROUP_ROWS", 9)
        write_manifest(layout)
        for path in (tmp_path / "receipts").iterdir():
            path.unlink()
    catalog = read_catalog(layout.root, needs_boxes)
    check(catalog, layout, needs_boxes, rows, fingerprint)
    assert catalog.left_out == (0 if not needs_boxes else 1)


def test_samples_may_lie_in_any_order_in_their_receipt(tmp_path: Path) -> None:
    layout = fake_receipts(str(tmp_path))
    for receipt in read_receipts(layout):
        turned = [
            ReceiptRow(**{name: getattr(row, name) for name in row.__slots__} | {"position": 10 - row.position})
            for row in receipt.rows
        ]
        write_receipt(layout, receipt.unit, turned, receipt.shards, receipt.fingerprint)
    rows = plain_rows(layout, True)
    check(read_catalog(layout.root), layout, True, rows, plain_fingerprint(layout, rows))


def test_a_key_that_cannot_be_read_any_more_is_a_place(tmp_path: Path) -> None:
    layout = fake_receipts(str(tmp_path))
    catalog = read_catalog(layout.root)
    Path(layout.receipt("part-00000000.parquet")).write_bytes(b"damaged")
    assert catalog.key(0) == f"part-00000000.tar at byte {catalog.offsets[0]}"
    assert catalog.key(len(catalog) - 1).startswith(("images-", "videos-"))
    assert pickle.loads(pickle.dumps(catalog)).key(len(catalog) - 1).startswith("part-00000006.tar at byte")


def test_an_overlap_is_found_wherever_the_rows_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = fake_receipts(str(tmp_path), units=1)
    (receipt,) = read_receipts(layout)
    stored = [row for row in receipt.rows if row.status == "ok" and row.proposals + row.objects]
    for number in range(1, len(stored)):
        lengths = {stored[number - 1].position: stored[number].offset - stored[number - 1].offset + 1}
        rows = [
            ReceiptRow(
                **{name: getattr(row, name) for name in row.__slots__} | {"size": lengths.get(row.position, row.size)}
            )
            for row in receipt.rows
        ]
        write_receipt(layout, 0, rows, receipt.shards, receipt.fingerprint)
        for rows_checked in (1, 2, 3, 100):
            monkeypatch.setattr(module, "_ROWS_CHECKED", rows_checked)
            with pytest.raises(BadReceipt, match=f"{stored[number].size} bytes at byte {stored[number].offset}"):
                read_catalog(layout.root)
