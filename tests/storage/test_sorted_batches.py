"""Tables in the order of a text, whatever comes in whichever order, in memory and on disk."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from trackmill.pipeline.storage import sorted_batches
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.listing import LISTING_SCHEMA, Listing, ListingMaker
from trackmill.pipeline.storage.sorted_batches import which_are_in


@pytest.fixture(params=range(24))
def chance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """A seed, and pieces of a few rows of which some or all lie on disk."""
    chance = random.Random(request.param)
    for name, choices in {
        "_LOT_ROWS": [1, 5, 50],
        "_PIECE_ROWS": [2, 7, 100],
        "_MERGED_ROWS": [1, 3, 10],
        "_MEMORY_BYTES": [0, 100, 1 << 20],
    }.items():
        monkeypatch.setattr(sorted_batches, name, chance.choice(choices))
    return chance


def drawn(chance: random.Random) -> list[FileInfo]:
    names = chance.choice([30, 10**6])
    files = [FileInfo(f"x{chance.randrange(names)}é", chance.randrange(9)) for _ in range(chance.choice([1, 10, 120]))]
    return sorted(files) if chance.random() < 0.3 else files


def test_a_listing_is_sorted_and_holds_each_file_once(chance: random.Random) -> None:
    files = drawn(chance)
    maker, place = ListingMaker(), 0
    while place < len(files):
        lot = files[place : place + chance.randrange(1, 9)]
        maker.add([file.uri for file in lot], [file.size for file in lot])
        place += len(lot)
    listing = maker.finish()
    expected = sorted({file.uri: file for file in files}.values())  # of two the later one
    assert list(listing) == list(listing) == expected and len(listing) == len(expected)
    assert listing[-1] == expected[-1] and listing[1:3] == expected[1:3]


def test_what_is_known_is_told_by_the_text(chance: random.Random) -> None:
    listing = Listing.of(drawn(chance))
    known = sorted({file.uri for file in listing if chance.random() < 0.5} | {"x", "y"})
    others = Listing.of(FileInfo(uri, 0) for uri in known)
    found = [each for mask in which_are_in(listing.batches(), "uri", others.batches()) for each in mask.to_pylist()]
    assert found == [file.uri in known for file in listing]


def test_nothing_at_all() -> None:
    assert list(Listing.of([])) == [] and Listing.of([]).among(["a"]) == {}
    empty = pa.RecordBatch.from_arrays([pa.array([], pa.string()), pa.array([], pa.int64())], schema=LISTING_SCHEMA)
    assert [len(mask) for mask in which_are_in([empty], "uri", [])] == [0]
