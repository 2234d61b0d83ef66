"""The plan: units of a known size, numbers that never change, new items at the end."""

from __future__ import annotations

import pytest

from trackmill.pipeline.mining.plan import (
    PlanError,
    extend,
    listing_digest,
    read_plan,
    store_plan,
)
from trackmill.pipeline.mining.settings import ShardSettings
from trackmill.pipeline.mining.units import cut_units, frames_per_unit
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.listing import Listing
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.media import WorkItem


def item(name: str, frames: int = 1) -> WorkItem:
    return WorkItem(source="images", source_id=name, key=f"images-{name}", uri=f"/x/{name}", frames=frames)


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (1, 8),  # never less than eight: a unit has a cost
        (640, 10),  # a sixty-fourth
        (10_000_000, 512),  # never more: what a killed worker loses stays bounded
    ],
)
def test_unit_size_follows_the_corpus(total: int, expected: int) -> None:
    assert frames_per_unit(total, ShardSettings()) == expected


@pytest.mark.parametrize(
    ("frames", "target", "expected"),
    [
        ([1, 1, 1, 1, 1], 2, [2, 2, 1]),  # an odd one is left over
        ([32, 32, 1], 8, [1, 1, 1]),  # an item larger than the target has a unit of its own
        ([1, 32, 1], 8, [1, 1, 1]),  # and does not drag its neighbours in
        ([], 8, []),  # nothing to do
    ],
)
def test_cutting(frames: list[int], target: int, expected: list[int]) -> None:
    items = [item(str(number), count) for number, count in enumerate(frames)]
    units = cut_units(items, ShardSettings(unit_frames=target))
    assert [len(unit) for unit in units] == expected
    assert [one for unit in units for one in unit] == items


def test_round_trip_and_growth() -> None:
    layout = Layout("memory://plan-growth")
    settings = ShardSettings(unit_frames=2)
    store_plan(layout, extend(None, [item("a"), item("b"), item("c")], settings, "first"))
    stored = read_plan(layout)
    assert stored is not None
    assert (stored.num_items, stored.num_units, stored.listing) == (3, 2, "first")
    assert [one.source_id for one in stored.unit(0)] == ["a", "b"]

    # A file that sorts before all others comes last: units that are there keep their numbers and their items.
    grown = extend(stored, [item("0"), item("a"), item("b"), item("c")], settings, "second")
    store_plan(layout, grown)
    again = read_plan(layout)
    assert again is not None
    assert (again.num_items, again.num_units, again.listing, again.parts) == (4, 3, "second", 2)
    assert again.unit(0) == stored.unit(0)
    assert again.unit(2) == grown.unit(2) == [item("0")]


def test_damaged_plan_is_named() -> None:
    layout = Layout("memory://plan-damaged")
    publish_bytes(f"{layout.plan}/plan-0000.parquet", b"not parquet")
    with pytest.raises(PlanError, match=r"plan-0000\.parquet"):
        read_plan(layout)


def test_listing_digest_sees_names_sizes_source_and_limit() -> None:
    files = [FileInfo("/a.jpg", 1), FileInfo("/b.jpg", 2)]
    digests = {
        listing_digest(Listing.of(files), "auto", None),
        listing_digest(Listing.of(files), "images", None),
        listing_digest(Listing.of(files), "auto", 1),
        listing_digest(Listing.of(files[:1]), "auto", None),
        listing_digest(Listing.of([files[0], FileInfo("/b.jpg", 3)]), "auto", None),
    }
    assert len(digests) == 5
    assert listing_digest(Listing.of(files), "auto", None) == listing_digest(Listing.of(files), "auto", None)
