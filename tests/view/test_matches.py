"""Filters over many blocks of rows: pages are exact, scanning stops early and goes on, memory does not grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from tests.make_dataset import make_item, make_row
from trackmill.pipeline.shards import rows as rows_module
from trackmill.pipeline.shards.receipts import rows_table
from trackmill.pipeline.shards.rows import RowBlocks, Rows
from trackmill.pipeline.view.matches import MAX_PAGE, Filters, Matches

NUM_BLOCKS, BLOCK = 40, 50


def block(number: int) -> pa.Table:
    """Every seventh row was set aside, every thirteenth has negatives; the last blocks are of another source."""
    made = []
    for place in range(BLOCK):
        count = number * BLOCK + place
        item = make_item("late" if number >= NUM_BLOCKS - 2 else "early", f"n{count}")
        status = "quarantined" if count % 7 == 0 else "ok"
        values = {"negatives": int(count % 13 == 0), "objects": count % 5, "mean_score": count % 11 / 10}
        made.append(make_row(item, number, place, status=status, **values))
    return rows_table(made)


class Blocks:
    """Blocks of rows, and what was read of them."""

    def __init__(self) -> None:
        self.read: list[tuple[int, tuple[str, ...]]] = []
        tables = [block(number) for number in range(NUM_BLOCKS)]

        def read(number: int, schema: pa.Schema) -> pa.Table:
            self.read.append((number, tuple(schema.names)))
            return tables[number].select(schema.names)

        self.blocks = RowBlocks(read, [1 << 23] * NUM_BLOCKS, str)  # large: one is read at a time
        for table in tables:
            self.blocks.note(table)
        self.rows = [row for table in tables for row in table.to_pylist()]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Blocks:
    """As of a data set that does not stay in memory."""
    monkeypatch.setattr(rows_module, "HELD_ROWS", BLOCK)
    return Blocks()


CASES: list[tuple[Filters, Callable[[dict[str, Any]], bool]]] = [
    (Filters(), lambda row: row["status"] == "ok"),
    (Filters(negatives="with"), lambda row: row["status"] == "ok" and row["negatives"] > 0),
    (
        Filters(source="late", min_objects=2),
        lambda row: row["status"] == "ok" and row["key"].startswith("late-") and row["objects"] >= 2,
    ),
    # Without a score is who has 0: no bound lets it pass.
    (Filters(max_mean_score=0.3), lambda row: row["status"] == "ok" and 0 < row["mean_score"] <= 0.3),
    (
        Filters(min_mean_score=0.5, max_mean_score=0.7),
        lambda row: row["status"] == "ok" and 0.5 <= row["mean_score"] <= 0.7,
    ),
    (Filters(min_mean_score=-1), lambda row: row["status"] == "ok" and row["mean_score"] > 0),
    (Filters(status="quarantined"), lambda row: row["status"] == "quarantined"),
]


@pytest.mark.parametrize(("filters", "passes"), CASES)
@pytest.mark.parametrize("count", [1, 7, MAX_PAGE])
def test_pages_are_exact(many: Blocks, filters: Filters, passes: Callable[[dict[str, Any]], bool], count: int) -> None:
    expected = [row["key"] for row in many.rows if passes(row)]
    rows = Rows(many.blocks, stored=filters.status == "ok")
    matches = Matches(rows, filters)
    found = []
    for begin in range(0, len(expected) + count, count):
        page = matches.page(begin, count)
        found += [row.key for _, row in page.rows]
        assert all(rows[number].key == row.key for number, row in page.rows[:3]), "numbers lead to the rows"
    assert found == expected and page.complete and page.found == len(expected)


def test_the_first_page_does_not_wait_for_the_rest(many: Blocks) -> None:
    matches = Matches(Rows(many.blocks, stored=True), Filters(max_objects=3))
    page = matches.page(0, 24)
    assert len(page.rows) == 24 and not page.complete and page.scanned == 1 / NUM_BLOCKS
    assert {number for number, _ in many.read} <= {0, 1}, "what is read ahead is at most one block more"
    many.read.clear()
    matches.page(0, 24)
    assert not many.read, "the block is in memory"


def test_all_rows_need_no_scan(many: Blocks) -> None:
    page = Matches(Rows(many.blocks, stored=True), Filters()).page(1000, 10)
    assert page.complete and len({number for number, _ in many.read}) == 1


def test_rare_matches_come_in_pieces(many: Blocks) -> None:
    """Each answer scans for a bounded time, one block at least, and the next one goes on where it stopped."""
    matches = Matches(Rows(many.blocks, stored=True), Filters(source="late"))
    pages = [matches.page(0, 24, scan_s=0) for _ in range(NUM_BLOCKS)]
    assert [page.scanned for page in pages[:3]] == [1 / NUM_BLOCKS, 2 / NUM_BLOCKS, 3 / NUM_BLOCKS]
    assert not pages[0].rows and not pages[0].complete and len(pages[-1].rows) == 24
    narrow = [names for _, names in many.read if len(names) < 10]
    assert set(narrow) == {("key", "status")}, "only the columns that decide are read"
    scanned = [number for number, names in many.read if len(names) < 10]
    # Of a block that was read ahead and given up nothing stays, so it may be read twice.
    assert set(scanned) <= set(range(NUM_BLOCKS)) and len(scanned) <= 2 * NUM_BLOCKS


def test_a_page_is_bounded(many: Blocks) -> None:
    assert len(Matches(Rows(many.blocks, stored=True), Filters()).page(0, 10**9).rows) == MAX_PAGE
