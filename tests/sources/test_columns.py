"""Sources that name items in columns name exactly those that they name as objects."""

from __future__ import annotations

import random

import pytest

from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.claiming import claim_listing
from trackmill.pipeline.sources.images import SUFFIXES
from trackmill.pipeline.sources.item_columns import items_of
from trackmill.pipeline.sources.key_columns import sample_keys, slugs
from trackmill.pipeline.storage import sorted_batches
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.listing import Listing
from trackmill.schemas.keys import sample_key, slug

NAMES = ["sa_1", "sa_2", "sa_33", "a", "b c", "x.y", "sa_1.foo", "Ünï", 'q"u', "b\\z", "--", "A_1", "sa_٣", "a.b"]
FOLDERS = [
    "m://b/",
    "m://b/sa_1.jpg_masks/",
    "m://b/a.d/",
    "m://b/images/",
    "m://b/annotations/",
    "m://b/train/images/s/",
    "m://b/train/annotations/s/",
]
ENDS = ["jpg", "json", "jpg", "json", "JPG", "jpeg", "png", "txt", "JSON", "jſon", *(suffix[1:] for suffix in SUFFIXES)]


def claimed(files: list[FileInfo], source: str, columns: bool) -> object:
    """Items and what is left, or the error."""
    try:
        found = claim_listing(Listing.of(files), source, ReadSettings(), columns=columns)
    except ValueError as error:
        return str(error)
    return [item for rows in found.items.batches() for item in items_of(rows)], list(found.left)


@pytest.mark.parametrize("source", ["images", "sa1b", "auto"])
@pytest.mark.parametrize("seed", range(25))
def test_columns_and_objects_name_the_same(source: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(sorted_batches, "_LOT_ROWS", chance.choice([3, 8, 1000]))
    monkeypatch.setattr(sorted_batches, "_PIECE_ROWS", chance.choice([1, 3, 1000]))
    names, ends = NAMES[: chance.choice([3, len(NAMES)])], ENDS[: chance.choice([4, len(ENDS)])]
    uris = {f"{chance.choice(FOLDERS)}{chance.choice(names)}.{chance.choice(ends)}" for _ in range(30)}
    files = [FileInfo(uri, len(uri)) for uri in sorted(uris)]
    assert claimed(files, source, columns=True) == claimed(files, source, columns=False)


def test_keys_in_columns() -> None:
    names = [*NAMES, "", "x" * 60, "-" * 50, "a" * 39 + "--b", "İ.ẞ", "A  B"]
    for some in (names, [name for name in names if name.isascii()]):
        assert slugs(some).to_pylist() == [slug(name) for name in some]
        expected = [sample_key("My source", name, f"id{name}") for name in some]
        assert sample_keys("My source", some, [f"id{name}" for name in some]).to_pylist() == expected
