"""A manifest is left as it is while its receipts are the very same ones, and only then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import orjson
import pytest
from PIL import Image

from tests.object_store import ObjectStore, object_store
from tests.shards.test_manifest import fake_receipts, fake_rows, plain_totals
from trackmill.jobs import mine_proposals
from trackmill.pipeline.shards import manifest, manifest_source
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.manifest_source import current_manifest
from trackmill.pipeline.shards.receipts import read_receipts, write_receipt
from trackmill.pipeline.storage.documents import publish_document, read_document
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes, remove


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture(params=["local", "store"])
def layout(request: pytest.FixtureRequest, tmp_path: Path, store: ObjectStore) -> Layout:
    root = str(tmp_path / "set") if request.param == "local" else f"s3://b/{tmp_path.name}"
    layout = fake_receipts(root)
    for unit in (3, 4):
        numbered(layout, unit, 50)
    write_manifest(layout)
    return layout


def receipt_of(layout: Layout, unit: int) -> str:
    return layout.receipt(f"part-{unit:08d}.parquet")


def numbered(layout: Layout, unit: int, number: int) -> None:
    """Write a receipt that has a number in it. Its length is the same whatever the number, of those from 50 to 60."""
    rows = fake_rows(unit, 11)
    rows[0] = dataclasses.replace(rows[0], checksum=number)
    write_receipt(layout, unit, rows, read_receipts(layout, [unit])[0].shards, "f" * 16)


def other_rows(layout: Layout, unit: int) -> None:
    """Another receipt of the same length in the place of one."""
    before = read_bytes(receipt_of(layout, unit))
    numbered(layout, unit, 51)
    after = read_bytes(receipt_of(layout, unit))
    assert len(after) == len(before) and after != before


def in_place(layout: Layout) -> None:
    """Another receipt of the same length in the same inode; an object has none, and is overwritten."""
    url = receipt_of(layout, 4)
    before = read_bytes(url)
    other_rows(layout, 4)
    after = read_bytes(url)
    publish_bytes(url, before)
    write_manifest(layout)
    if url.startswith("s3:"):
        publish_bytes(url, after)
    else:
        with open(url, "r+b") as handle:
            handle.write(after)


def damaged(url: str) -> None:
    data = read_bytes(url)
    remove(url)
    publish_bytes(url, data[: len(data) // 2])


def without_shards(layout: Layout) -> None:
    """The manifest of one receipt less, in the place of the one that is noted."""
    note = read_bytes(layout.manifest_source)
    removed = read_bytes(receipt_of(layout, 6))
    remove(receipt_of(layout, 6))
    write_manifest(layout)
    publish_bytes(receipt_of(layout, 6), removed)
    publish_bytes(layout.manifest_source, note)


def note(**changed: object) -> Callable[[Layout], None]:
    return lambda layout: publish_document(layout.manifest_source, read_document(layout.manifest_source) | changed)


CHANGES: dict[str, Callable[[Layout], object]] = {
    "a receipt more": lambda layout: write_receipt(layout, 7, fake_rows(7, 11), [], "f" * 16),
    "a receipt less": lambda layout: remove(receipt_of(layout, 5)),
    "the last receipt less": lambda layout: remove(receipt_of(layout, 6)),
    "another receipt of the same length": lambda layout: other_rows(layout, 3),
    "one that was written over": in_place,
    "one less and one more": lambda layout: (
        publish_bytes(receipt_of(layout, 9), read_bytes(receipt_of(layout, 6))),
        remove(receipt_of(layout, 6)),
    ),
    "an older manifest without a note": lambda layout: remove(layout.manifest_source),
    "no table of items": lambda layout: remove(layout.manifest),
    "no table of shards": lambda layout: remove(layout.manifest_shards),
    "half a table of items": lambda layout: damaged(layout.manifest),
    "half a table of shards": lambda layout: damaged(layout.manifest_shards),
    "half a note": lambda layout: damaged(layout.manifest_source),
    "tables of other receipts": without_shards,
    "a note of another version": note(format=2),
    "a note without totals": note(totals=None),
    "a note whose totals are lists": note(totals={"units": [], "statuses": []}),
    "a note of a number": lambda layout: publish_bytes(layout.manifest_source, b"7"),
}


def test_a_manifest_of_these_receipts_is_known_with_its_totals(layout: Layout) -> None:
    current = current_manifest(layout)
    assert current is not None and current.totals == plain_totals(layout)
    assert current.shards == [shard for receipt in read_receipts(layout) for shard in receipt.shards]


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_seen_and_mended(layout: Layout, name: str) -> None:
    CHANGES[name](layout)
    assert current_manifest(layout) is None
    assert write_manifest(layout) == plain_totals(layout)
    current = current_manifest(layout)
    assert current is not None and current.totals == plain_totals(layout)


def test_a_receipt_that_is_replaced_while_they_are_read_does_not_pass(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = manifest.stream_receipts

    def replaced_meanwhile(layout: Layout) -> Iterator[object]:
        receipts = list(real(layout))
        other_rows(layout, 3)
        return iter(receipts)

    monkeypatch.setattr(manifest, "stream_receipts", replaced_meanwhile)
    write_manifest(layout)
    assert current_manifest(layout) is None


def test_a_flipped_bit_in_the_table_of_items_is_seen_on_this_machine(tmp_path: Path) -> None:
    layout = fake_receipts(str(tmp_path))
    write_manifest(layout)
    path = Path(layout.manifest)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert current_manifest(layout) is None


def test_where_a_store_does_not_tell_versions_nothing_is_noted(tmp_path: Path) -> None:
    layout = fake_receipts(f"memory://{tmp_path.name}/set")
    write_manifest(layout)
    assert not exists(layout.manifest_source) and current_manifest(layout) is None


def test_sums_that_json_does_not_have_are_not_noted(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    rows = [dataclasses.replace(row, proposals=(1 << 62)) for row in fake_rows(0, 5)]
    write_receipt(layout, 0, rows, [], "f" * 16)
    assert write_manifest(layout).counts["proposals"] == 5 << 62
    assert current_manifest(layout) is None


def test_tables_have_the_same_bytes_wherever_and_whenever_they_are_made(layout: Layout, tmp_path: Path) -> None:
    before = read_bytes(layout.manifest), read_bytes(layout.manifest_shards)
    write_manifest(layout)
    copy = Layout(str(tmp_path / "copy"))
    for unit in range(7):
        publish_bytes(receipt_of(copy, unit), read_bytes(receipt_of(layout, unit)))
    write_manifest(copy)
    assert before == (read_bytes(layout.manifest), read_bytes(layout.manifest_shards))
    assert before == (read_bytes(copy.manifest), read_bytes(copy.manifest_shards))


def test_a_run_that_finds_everything_done_reads_no_receipt(
    tmp_path: Path, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(random.integers(0, 255, (32, 40, 3), np.uint8)).save(tmp_path / f"p{number:02d}.png")

    def mine(*more: str) -> tuple[str, list[str]]:
        words = ["--input", str(tmp_path), "--source", "images", "--output", "s3://b/mined", "--executor", "inline"]
        for setting in ("shards.unit_frames=2", "run.isolate=false"):
            words += ["--set", setting]
        fsspec.filesystem("s3").invalidate_cache()
        store.forget()
        assert mine_proposals.main([*words, *more]) == 0
        return capsys.readouterr().out, [name for name, _, _ in store.gets if "/receipts/" in name]

    first, _ = mine()
    assert "done: 12 items (12 ok); 6 units done now, 6 in all" in first
    tables = [store.objects[f"b/mined/manifest/{name}.parquet"] for name in ("items", "shards")]
    for more in ([], ["--part", "1/2"], ["--part", "2/2"]):
        again, read = mine(*more)
        assert not read and "done: 12 items (12 ok); nothing was left to do, 6 in all" in again
        assert again.splitlines()[-2:] == first.splitlines()[-2:]
        assert all(
            store.objects[f"b/mined/manifest/{name}.parquet"] is table
            for name, table in zip(("items", "shards"), tables, strict=True)
        ), "not even put there again"
    del store.objects["b/mined/manifest/made-from.json"]
    assert len(mine("--part", "1/2")[1]) == 6, "of an older manifest nobody knows what it was made from"
    del store.objects["b/mined/receipts/part-00000003.parquet"]
    again, read = mine()
    assert "1 unit done now, 6 in all" in again and read
    items = store.objects["b/mined/manifest/items.parquet"]
    assert isinstance(items, bytes) and items != tables[0], "the unit took another time"
    assert not mine("--part", "1/1")[1]


def test_the_note_is_json_with_a_checksum(tmp_path: Path) -> None:
    layout = fake_receipts(str(tmp_path))
    write_manifest(layout)
    document = orjson.loads(read_bytes(layout.manifest_source))
    assert document["receipts"] == manifest_source.receipts_digest(layout) and len(document["checksum"]) == 64
