"""Byte ranges that are known beforehand: few requests, the same bytes, and every error where it belongs."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.object_store import ObjectStore, object_store
from trackmill.pipeline.storage import retries
from trackmill.pipeline.storage.files import read_bytes, read_once
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.windows import HELD, Range, Windows, join_ranges, reading_through
from trackmill.schemas.errors import StorageError

URI = "s3://b/x.tar"
DATA = random.Random(0).randbytes(3_000_000)
RANGES = [Range(URI, place, 9_000) for place in range(0, 2_900_000, 10_000)]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    with object_store() as store:
        store.objects["b/x.tar"] = DATA
        yield store


def read_all(ranges: list[Range], windows: Windows) -> None:
    with reading_through(windows):
        for each in ranges:
            assert read_bytes(each.uri, each.offset, each.length) == DATA[each.offset : each.end]
            assert len(windows._held) <= HELD
    windows.close()


def test_neighbours_come_by_one_request(store: ObjectStore) -> None:
    read_all(RANGES, Windows(RANGES, read_once, 1 << 20))
    assert store.counts == {"GET": 3}


def test_ranges_in_any_order_and_twice(store: ObjectStore) -> None:
    shuffled = random.Random(1).sample(RANGES, len(RANGES)) + RANGES[:5]
    read_all(shuffled, Windows(RANGES, read_once, 1 << 20))


def test_what_was_not_expected_is_read_by_itself(store: ObjectStore) -> None:
    with reading_through(Windows(RANGES[:4], read_once)):
        assert read_bytes(URI, 2_000_000, 5) == DATA[2_000_000:2_000_005]
        assert read_bytes(URI, 12_345, 20) == DATA[12_345:12_365], "a part of what was expected"
        with pytest.raises(FileTooLarge):
            read_bytes(URI, 0, 9_000, max_bytes=100)
    assert len(store.gets) == 2


@pytest.mark.parametrize("refusals", [[404], [404] * 3])
def test_a_window_that_fails_costs_nobody_anything(store: ObjectStore, refusals: list[int]) -> None:
    store.refusals = refusals[:2]
    read_all(RANGES[:6], Windows(RANGES[:6], read_once))


def test_a_file_that_is_shorter_now_is_told_of_the_range_that_is_missing(store: ObjectStore) -> None:
    store.objects["b/x.tar"] = DATA[:35_000]
    with reading_through(Windows(RANGES[:6], read_once)):
        assert read_bytes(URI, 20_000, 9_000) == DATA[20_000:29_000]
        with pytest.raises(StorageError, match=r"s3://b/x\.tar: gave up .* 5000 of 9000 bytes arrived"):
            read_bytes(URI, 30_000, 9_000)


def test_how_ranges_are_joined() -> None:
    def joined(*ranges: tuple[str, int, int], most: int = 10_000_000) -> list[tuple[str, int, int]]:
        return [(each.uri, each.offset, each.length) for each in join_ranges([Range(*each) for each in ranges], most)]

    assert joined() == [] and joined(("a", 0, 5)) == []
    assert joined(("a", 100, 5), ("a", 90, 5)) == [("a", 90, 15)]
    assert joined(("a", 0, 5), ("b", 5, 5)) == [], "two files"
    assert joined(("a", 0, 5), ("a", 5_000_000, 5)) == [], "far from each other"
    assert joined(("a", 0, 60), ("a", 60, 60), ("a", 120, 60), ("a", 180, 60), most=130) == [
        ("a", 0, 120),
        ("a", 120, 120),
    ]
    assert joined(("a", 0, 60), ("a", 60, 600), ("a", 70, 5), most=130) == [("a", 0, 75)], "too long for a window"
    assert joined(("a", -1, -1), ("a", 0, 0), ("a", 0, 10), ("a", 4, 2)) == [("a", 0, 10)]
    assert joined(("b", 0, 5), ("a", 0, 5), ("a", 5, 5), ("b", 5, 5)) == [("b", 0, 10), ("a", 0, 10)], "as needed first"
