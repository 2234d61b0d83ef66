"""What looking at a data set in a store costs: requests are counted, and bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.make_dataset import make_dataset
from tests.object_store import ObjectStore, object_store
from tests.view.served import served
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.storage.urls import filesystem

ROOT = "s3://bucket/set"


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        make_dataset(ROOT, num_images=30)
        make_sidecar(ROOT, "chains", settings={"min_iou": 0.3})
        running.forget()
        filesystem(ROOT)[0].invalidate_cache()
        yield running


def test_a_sample_is_one_ranged_read(store: ObjectStore) -> None:
    rows = open_dataset(ROOT).stored
    store.forget()
    with served(ROOT) as view:
        print(f"opened by {dict(store.counts)}, {store.sent:,} bytes")
        assert not [name for name, _, _ in store.gets if "/receipts/" in name], "the manifest is read instead"
        assert not [name for name, _, _ in store.gets if "/shards/" in name]
        store.forget()
        found = view.rows()
        assert len(found) == 24 and not store.counts, "a page of rows is in memory"
        for row in found:
            place = {"row": row["number"], "key": row["key"]}
            view.get("sample", frame=0, **place)
            assert view.ask("api/frame", frame=0, width=400, **place).status == 200
        print(f"a page of 24 pictures with their boxes: {dict(store.counts)}, {store.sent:,} bytes")
        assert dict(store.counts) == {"GET": 24}
        shards = [rows[number] for number in range(24)]
        expected = [(f"bucket/set/shards/{r.shard}", r.offset, r.offset + r.size) for r in shards]
        assert store.gets == expected, "each sample's bytes and no more"
        store.forget()
        place = {"row": found[0]["number"], "key": found[0]["key"]}
        view.get("sample", **place), view.get("masks", frame=0, **place), view.ask("api/frame", frame=0, **place)
        assert not store.counts, "what was read for the grid serves the large view too"
        clip = view.rows(kind="clip")[0]
        place = {"row": clip["number"], "key": clip["key"]}
        for frame in range(10):
            assert view.ask("api/frame", frame=frame, **place).status == 200
        assert dict(store.counts) == {"GET": 1}, "all frames of a clip come at once"
        store.forget()
        view.get("sidecar", name="chains", **place)
        view.get("sidecar", name="chains", **place)
        print(f"a sidecar of a clip: {dict(store.counts)}")
        assert dict(store.counts) == {"GET": 1}
        assert [name for name, _, _ in store.gets] == ["bucket/set/sidecars/chains/part-00000001.parquet"]


def test_while_mining_goes_on_receipts_are_read(store: ObjectStore) -> None:
    del store.objects["bucket/set/manifest/items.parquet"]
    filesystem(ROOT)[0].invalidate_cache()
    with served(ROOT) as view:
        print(f"opened by {dict(store.counts)}")
        receipts = [name for name, _, _ in store.gets if "/receipts/" in name]
        assert len(receipts) == 2 and view.get("about")["going"]
        assert len(view.rows(count=100)) == 31


def test_a_manifest_that_is_behind_its_receipts_is_not_believed(store: ObjectStore) -> None:
    receipt = "bucket/set/" + Layout("").receipt("part-00000001.parquet").lstrip("/")
    del store.objects[receipt]
    filesystem(ROOT)[0].invalidate_cache()
    with served(ROOT) as view:
        assert view.get("about")["samples"] == 30
