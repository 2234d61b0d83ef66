"""Catalogs: the same from receipts, manifest and headers; damage is named."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.loader.examples import make_shards
from tests.make_dataset import FINGERPRINT, make_dataset
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.shards.receipts import BadReceipt, read_receipts, write_receipt
from trackmill.pipeline.shards.stream import split_piece


def test_rows_are_where_the_receipts_say(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(str(tmp_path), num_images=7).root)
    catalog = read_catalog(str(tmp_path))
    rows = {row.key: row for row in dataset.stored}
    assert len(catalog) == len(rows) == 8 and catalog.left_out == 0
    for sample in range(len(catalog)):
        row = rows[catalog.key(sample)]
        shard = int(catalog.shard_of(sample))
        assert catalog.shards[shard].name == row.shard
        assert (catalog.offsets[sample], catalog.sizes[sample], catalog.frames[sample]) == (
            row.offset,
            row.size,
            row.frames,
        )
        piece = Path(catalog.shard_urls[shard]).read_bytes()[row.offset : row.offset + row.size]
        assert split_piece(piece, row.shard, row.offset).key == row.key
        assert read_row(dataset, row).key == row.key
    assert catalog.shard_of(np.arange(len(catalog))).tolist() == sorted(catalog.shard_of(np.arange(len(catalog))))


def same_places(a: Catalog, b: Catalog) -> bool:
    names = ("first", "offsets", "sizes", "frames")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_receipts_manifest_and_headers_agree(tmp_path: Path) -> None:
    make_dataset(str(tmp_path / "a"), num_images=7)
    whole = read_catalog(str(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "receipts")
    manifest = read_catalog(f"file://{tmp_path}/b/")
    assert manifest.fingerprint == whole.fingerprint and same_places(manifest, whole)
    shutil.rmtree(tmp_path / "b" / "manifest")
    tars = read_catalog(str(tmp_path / "b"))
    assert same_places(tars, whole)
    assert [tars.key(i) for i in range(8)] == [whole.key(i) for i in range(8)]
    folder = read_catalog(str(tmp_path / "b" / "shards"))
    assert same_places(folder, whole) and folder.fingerprint == tars.fingerprint
    assert len(read_catalog(whole.shard_urls[0])) == 3


def test_fingerprint_tells_data_apart(tmp_path: Path) -> None:
    prints = [read_catalog(make_shards(str(tmp_path / str(number)), number).root).fingerprint for number in (9, 10, 11)]
    assert len(set(prints)) == 3


def test_samples_without_a_box_are_left_out(tmp_path: Path) -> None:
    layout = make_shards(str(tmp_path), 9, units=1)
    receipt = read_receipts(layout)[0]
    rows = [
        dataclasses.replace(row, objects=0, proposals=0) if n in (2, 6) else row for n, row in enumerate(receipt.rows)
    ]
    write_receipt(layout, 0, rows, receipt.shards, FINGERPRINT)
    catalog = read_catalog(str(tmp_path))
    assert len(catalog) == 7 and catalog.left_out == 2
    assert {rows[2].key, rows[6].key}.isdisjoint(catalog.key(sample) for sample in range(7))
    everything = read_catalog(str(tmp_path), needs_boxes=False)
    assert len(everything) == 9 and everything.left_out == 0, "for boxes out of a sidecar"
    assert everything.fingerprint != catalog.fingerprint


def test_nothing_to_train_on(tmp_path: Path) -> None:
    layout = make_shards(str(tmp_path), 3, units=1)
    receipt = read_receipts(layout)[0]
    write_receipt(
        layout, 0, [dataclasses.replace(r, objects=0, proposals=0) for r in receipt.rows], receipt.shards, "f"
    )
    with pytest.raises(ValueError, match=r"no sample to train on: all 3 samples are without a single box"):
        read_catalog(str(tmp_path))
    write_receipt(layout, 0, [dataclasses.replace(row, status="skipped") for row in receipt.rows], receipt.shards, "f")
    with pytest.raises(ValueError, match="no sample to train on: nothing was stored"):
        read_catalog(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no data set here"):
        read_catalog(str(tmp_path / "elsewhere"))


def test_damaged_receipts_are_named(tmp_path: Path) -> None:
    layout = make_shards(str(tmp_path), 6)
    receipt = read_receipts(layout)[1]
    path = Path(layout.receipts) / "part-00000001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadReceipt, match=r"part-00000001.parquet: not a readable receipt"):
        read_catalog(str(tmp_path))
    for change, message in (
        ({"offset": 512}, "leaves the shard or overlaps"),
        ({"size": 1 << 40}, "leaves the shard or overlaps"),
        ({"offset": -1}, "leaves the shard or overlaps"),
        ({"shard": "part-00000009.tar"}, "which no receipt lists"),
    ):
        rows = [dataclasses.replace(receipt.rows[0], **change), *receipt.rows[1:]]
        write_receipt(layout, 1, rows, receipt.shards, FINGERPRINT)
        with pytest.raises(BadReceipt, match=message):
            read_catalog(str(tmp_path))
    shards = [dataclasses.replace(receipt.shards[0], name="../../etc.tar")]
    rows = [dataclasses.replace(row, shard="../../etc.tar") for row in receipt.rows]
    write_receipt(layout, 1, rows, shards, FINGERPRINT)
    with pytest.raises(BadReceipt, match="cannot be the name of a shard"):
        read_catalog(str(tmp_path))


def test_small_on_its_way_to_workers(tmp_path: Path) -> None:
    catalog = read_catalog(make_shards(str(tmp_path), 20).root)
    copy = pickle.loads(pickle.dumps(catalog))
    assert same_places(copy, catalog) and copy.fingerprint == catalog.fingerprint
    assert copy.key(0) == f"{catalog.shards[0].name} at byte 0"
    assert orjson.loads(orjson.dumps(catalog.fingerprint)) == catalog.fingerprint
