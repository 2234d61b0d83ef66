"""How many requests pictures cost on an object store, pinned: what grows with the pictures must stay small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import dummy_proposer, scale_requests
from tests.make_media import make_sa1b_folder, make_sa1b_tar
from tests.object_store import ObjectStore, object_store
from trackmill.models import registry
from trackmill.pipeline.mining.reading import ItemReader, window_bytes
from trackmill.pipeline.mining.settings import RunSettings, mine_config
from trackmill.pipeline.sources.claiming import claim_files, list_inputs
from trackmill.schemas.media import WorkItem

PICTURES = 24


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp("media")
    make_sa1b_folder(folder / "pairs", PICTURES)
    make_sa1b_tar(folder / "sa_000000.tar", PICTURES)
    with object_store() as store:
        for path in (folder / "pairs").iterdir():
            store.objects[f"b/pairs/{path.name}"] = path.read_bytes()
        store.objects["b/tars/sa_000000.tar"] = Path(folder / "sa_000000.tar").read_bytes()
        yield store


def plan(store: ObjectStore, url: str, source: str) -> tuple[list[WorkItem], Counter[str]]:
    config = mine_config({"source": source}, "test")
    store.forget()
    items, _ = claim_files(list_inputs([url], source), source, config.read)
    return items, store.counts.copy()


def read(store: ObjectStore, items: list[WorkItem], source: str, told: bool) -> tuple[list[np.ndarray], Counter[str]]:
    reader = ItemReader(mine_config({"source": source, "run": {"isolate": False}}, "test"))
    store.forget()
    if told:
        reader.expect(items)
    frames = []
    for item in items:
        reading = reader.read(item)
        assert reading.media is not None, reading.reason
        frames.append(reading.media.frames[0].image)
    reader.close()
    return frames, store.counts.copy()


def test_pairs_in_a_folder_cost_two_requests_a_picture(store: ObjectStore) -> None:
    items, planning = plan(store, "s3://b/pairs", "sa1b")
    assert len(items) == PICTURES and planning.total() <= 6, planning
    _, reading = read(store, items, "sa1b", told=True)
    assert reading == {"GET": 2 * PICTURES}


@pytest.mark.parametrize("source", ["sa1b", "webdataset"])
def test_a_tar_costs_a_few_requests_for_all_of_its_pictures(store: ObjectStore, source: str) -> None:
    items, planning = plan(store, "s3://b/tars/sa_000000.tar", source)
    assert len(items) == PICTURES
    # The listing, and of the tar its size and one pass.
    assert planning.total() <= 6 and planning["GET"] == 1, planning
    here, alone = read(store, items, source, told=False)
    there, together = read(store, items, source, told=True)
    assert alone["GET"] >= PICTURES
    assert together == {"GET": 1}
    assert all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))


def test_windows_take_a_small_share_of_an_items_memory() -> None:
    assert window_bytes(RunSettings()) == 16 << 20
    assert window_bytes(RunSettings(item_memory_bytes=64 << 20)) == 1 << 20
    assert window_bytes(RunSettings(item_memory_bytes=0)) == 16 << 20


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("folders", 3), ("official tars", 1), ("webdataset tars", 1)])
def test_all_of_a_run(kind: str, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning, mining, publishing and summing up, of a data set that is small beside those that matter."""
    monkeypatch.setitem(registry.PROPOSERS, "graph", registry.PROPOSERS["graph"])
    monkeypatch.setattr(dummy_proposer, "PROPOSAL_S", 0)
    counts = scale_requests.measured(kind, 1500)
    assert (counts["planning"].total() + counts["mining"].total()) / 1500 <= most, counts
    assert counts["resuming"].total() / 1500 <= 0.2
