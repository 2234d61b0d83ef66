"""Plans that are written and read in parts: the same units as of objects, old files, errors that name the item."""

from __future__ import annotations

import dataclasses
import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.benchmarks.scale import in_a_process
from trackmill.pipeline.mining import plan_files, planning, prepare
from trackmill.pipeline.mining.plan import Plan, extend, read_plan, store_plan
from trackmill.pipeline.mining.plan_files import SCHEMA
from trackmill.pipeline.mining.settings import ShardSettings, mine_config
from trackmill.pipeline.mining.units import UnitCutter, cut_units, survey
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.sources import claiming
from trackmill.pipeline.sources.item_columns import ItemSorter, items_batch
from trackmill.pipeline.storage.listed_chunks import Lot
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.media import WorkItem


def item(name: str, frames: int = 1, tar: str = "") -> WorkItem:
    place = {"uri": tar, "offset": 512, "length": 9} if tar else {"uri": f"s3://b/{name}"}
    return WorkItem(source="images", source_id=f"{tar}#{name}", key=f"images-{name}", frames=frames, **place)


def greedy(items: list[WorkItem], target: int) -> list[list[WorkItem]]:
    """Units by the rule, one item at a time."""
    sums: dict[str, int] = {}
    for each in items:
        sums[each.uri] = sums.get(each.uri, 0) + (each.frames if each.offset >= 0 else 0)
    units: list[list[WorkItem]] = []
    for before, each in zip([None, *items], items):
        large = {uri for uri, total in sums.items() if total >= target}
        border = before is not None and before.uri != each.uri and bool({before.uri, each.uri} & large)
        if not units or border or sum(one.frames for one in units[-1]) + each.frames > target:
            units.append([])
        units[-1].append(each)
    return units


@pytest.mark.parametrize("seed", range(40))
def test_units_end_where_large_tars_do(seed: int) -> None:
    chance = random.Random(seed)
    longest = chance.choice([1, 1, 5, 12])
    items = []
    for tar in range(chance.randrange(1, 7)):
        inside = chance.random() < 0.7
        for number in range(chance.choice([1, 2, 9, 40])):
            items.append(item(f"{tar}-{number}", chance.randint(1, longest), f"t{tar}.tar" if inside else ""))
    target = chance.choice([1, 4, 10])
    expected = greedy(items, target)
    assert cut_units(items, ShardSettings(unit_frames=target)) == expected
    # In lots of any length, as they come from disk.
    step = chance.choice([1, 3, 7])
    lots = [items_batch(items[place : place + step]) for place in range(0, len(items), step)]
    cutter = UnitCutter(survey(lots), ShardSettings(unit_frames=target))
    cut = [pair for lot in lots for pair in zip(*(part.tolist() for part in cutter.cut(lot["frames"].to_numpy())))]
    assert cut == [(unit, position) for unit, some in enumerate(expected) for position in range(len(some))]


def test_a_plan_of_an_older_version_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row group, statistics, dictionaries: written at once, as it used to be."""
    layout = Layout("memory://plan-old")
    rows = [
        {"unit": n // 3, "position": n % 3, **dataclasses.asdict(item(f"{n:02d}", frames=1 + n % 2))} for n in range(10)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA).replace_schema_metadata({b"trackmill.listing": b"digest"})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    publish_bytes(f"{layout.plan}/plan-0000.parquet", buffer.getvalue())
    plan = read_plan(layout)
    assert plan is not None and plan.listing == "digest" and plan.parts == 1
    assert (plan.num_items, plan.num_units, plan.num_frames) == (10, 4, 15)
    assert [one.source_id for one in plan.unit(3)] == ["#09"] and plan.frames_in([0, 3]) == 4 + 2
    monkeypatch.setattr(plan_files, "BATCH_ROWS", 2)  # the next part has several row groups, and units across them
    grown = extend(plan, [item(f"{n:02d}") for n in range(17)], ShardSettings(unit_frames=3), "next")
    store_plan(layout, grown)
    again = read_plan(layout)
    assert again is not None and again.listings == {"digest", "next"}
    for number in range(again.num_units):
        assert again.unit(number) == grown.unit(number)
    assert [one.source_id for number in (4, 5, 6) for one in again.unit(number)] == [f"#{n}" for n in range(10, 17)]
    assert again.items(8, 12) == [*again.unit(2)[2:], *again.unit(3), *again.unit(4)[:2]]
    assert again.unit(99) == []


def test_two_items_of_one_name_are_an_error_that_names_it() -> None:
    items = ItemSorter()
    items.add([item("a"), item("b"), item("a")])
    with pytest.raises(ValueError, match="#a: two items of source images have this source_id"):
        claiming._check_names(items.finish(), ["images"])
    items = ItemSorter()
    items.add([item("a")])
    with pytest.raises(ValueError, match="#a: an item of source 'images', should be of sa1b"):
        claiming._check_names(items.finish(), ["sa1b"])


def plan_of(monkeypatch: pytest.MonkeyPatch, output: str, names: list[str], objects: bool = False) -> Plan:
    with monkeypatch.context() as patched:
        sizes = [1] * len(names)
        patched.setattr(
            claiming, "list_lots", lambda url: iter([Lot([f"{url}/{url[-2:]}{name}" for name in names], sizes)])
        )
        if objects:
            patched.setattr(planning, "only_new", lambda *arguments: None)
        config = mine_config({"source": "images", "proposer": "graph"}, "test")
        return prepare.prepare_mining(config, ["s3://bucket/in", "s3://bucket/also"], output).plan


def test_columns_and_objects_make_the_same_plan(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    chance = random.Random(0)
    names = [f"{chance.randrange(10**9)}.jpg" for _ in range(60)]
    for objects in (False, True):
        output = str(tmp_path / str(objects))
        for count in (20, 20, 41, 60):
            plan_of(monkeypatch, output, names[:count], objects)
    plans = [read_plan(Layout(str(tmp_path / str(objects)))) for objects in (False, True)]
    assert plans[0] is not None and plans[1] is not None
    assert plans[0].num_items == plans[1].num_items >= 60 and plans[0].parts == 3
    for number in range(plans[0].num_units):
        assert plans[0].unit(number) == plans[1].unit(number)


def test_a_planner_that_dies_leaves_nothing_half_written(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    names = [f"{number}.jpg" for number in range(30)]
    whole = plan_of(monkeypatch, str(tmp_path / "whole"), names)
    for victim in ("store_sizes", "store_plan"):

        def dies(*arguments: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(prepare, victim, dies)
            with pytest.raises(KeyboardInterrupt):
                plan_of(patched, str(tmp_path / victim), names)
        assert not list((tmp_path / victim).glob("plan/*"))
        again = plan_of(monkeypatch, str(tmp_path / victim), names)
        assert again.items(0, 99) == whole.items(0, 99) and again.num_units == whole.num_units


@pytest.mark.slow
def test_memory_hardly_grows_with_the_plan(tmp_path) -> None:
    """Ten times the pictures, in a process of their own."""
    peaks = []
    for count in (40_000, 400_000):
        done = in_a_process("images", count, False, str(tmp_path / str(count)))
        peaks.append(done["peak_mb"])
    assert peaks[1] - peaks[0] < 150, f"{peaks}: an object an item would be some 700 MB"
