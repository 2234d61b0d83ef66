"""The forecast: the arithmetic from a few timed items to hours and money, with known speeds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.make_media import make_jpeg
from trackmill.jobs.mine_proposals import main
from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.mining.forecast import make_forecast, pick_items
from trackmill.pipeline.mining.plan import Plan, extend
from trackmill.pipeline.mining.settings import ShardSettings
from trackmill.pipeline.workers.prices import Prices
from trackmill.schemas.media import WorkItem

FREE = (None, 300_000, 200_000)
SECONDS_A_FRAME = {"images": 0.5, "videos": 2.0}


def make_plan() -> Plan:
    pictures = [
        WorkItem(source="images", source_id=f"a{n}", key=f"images-{n}", uri=f"/a{n}", frames=1) for n in range(100)
    ]
    clips = [
        WorkItem(source="videos", source_id=f"v{n}", key=f"videos-{n}", uri=f"/v{n}", frames=10) for n in range(20)
    ]
    return extend(None, pictures + clips, ShardSettings(unit_frames=10))


def measure(items: list[WorkItem]) -> list[tuple[int, float, int]]:
    """Known speeds; every picture whose number is odd cannot be mined."""
    results = []
    for item in items:
        bad = item.source == "images" and int(item.source_id[1:]) % 2
        count = 0 if bad else item.frames
        results.append((count, count * SECONDS_A_FRAME[item.source], count * 1000))
    return results


def test_each_source_counts_by_its_own_speed_and_share() -> None:
    plan = make_plan()
    found = make_forecast(plan, measure, workers=4, gpus=4, prices=Prices(gpu=3.0))
    work = 100 * 0.5 + 200 * 2.0
    assert found.seconds == pytest.approx(work / 4)
    assert found.gpu_hours == pytest.approx(work / 3600)
    assert found.price == pytest.approx(work / 3600 * 3)
    assert found.num_bytes == pytest.approx(300_000)
    assert (found.items, found.frames, found.units) == (120, 300, 30)
    assert found.seconds_per_frame == pytest.approx(work / 300)
    assert 0 < found.failed < found.timed
    assert any("could not be mined" in line for line in found.lines())


def test_what_a_worker_does_only_once_does_not_count() -> None:
    """Each call starts another worker, which needs a minute for its first picture and for its first clip."""
    plan, calls = make_plan(), []

    def cold(items: list[WorkItem]) -> list[tuple[int, float, int]]:
        calls.append(len(items))
        warm: set[str] = set()
        found = []
        for item, (count, spent, size) in zip(items, measure(items), strict=True):
            found.append((count, spent + (0 if item.source in warm else 60), size))
            warm.add(item.source)
        return found

    found = make_forecast(plan, cold, workers=4, gpus=0)
    assert found.seconds == pytest.approx((100 * 0.5 + 200 * 2.0) / 4)
    assert calls == [found.timed + 2]


def test_a_price_counts_what_the_pool_reserves() -> None:
    hours = (100 * 0.5 + 200 * 2.0) / 3600

    def price(gpus: int, **prices: float) -> str:
        found = make_forecast(make_plan(), measure, workers=4, gpus=gpus, cpus_each=2, prices=Prices(**prices))
        return next((line for line in found.lines() if line.startswith("price")), "")

    assert price(4, gpu=3.0) == f"price      {hours * 3:.2f} USD (GPU-hours)"
    assert price(0, cpu=50.0) == f"price      {hours * 2 * 50:.2f} USD (CPU-hours)"
    assert price(4, gpu=3.0, cpu=50.0) == f"price      {hours * 103:.2f} USD (GPU-hours and CPU-hours)"
    assert price(0, gpu=3.0) == "price      unknown: there is no GPU in this pool; give --usd-per-cpu-hour"
    assert price(0) == ""


def test_room_that_will_not_suffice_is_said() -> None:
    found = make_forecast(make_plan(), measure, workers=4, gpus=0, prices=Prices(gpu=3.0))
    shown = [next(line for line in replace(found, free=free).lines() if line.startswith("output")) for free in FREE]
    assert shown == [
        "output     300.0 kB in about 30 shards",
        "output     300.0 kB in about 30 shards (300.0 kB are free there)",
        "output     300.0 kB in about 30 shards (200.0 kB are free there: TOO LITTLE)",
    ]


def test_while_mining_goes_on_a_disk_that_fills_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        make_jpeg(tmp_path / "in" / f"{number}.jpg", 60, 80, seed=number)
    monkeypatch.setattr("trackmill.pipeline.console.disk_space.free_bytes", lambda url: 1000)
    words = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--executor", "inline"]
    assert main([*words, "--set", "shards.unit_frames=2"]) == 0
    (said,) = [text for text in caplog.messages if "are free on its disk" in text]
    assert re.search(r"out: the rest, 2 units, takes about .* kB, and 1\.0 kB are free on its disk: free some", said)


def test_more_workers_than_units_do_not_help() -> None:
    few, many = (make_forecast(make_plan(), measure, workers, 0).seconds for workers in (30, 3000))
    assert few == many


def test_the_picked_items_are_spread_and_the_same_every_time() -> None:
    plan = make_plan()
    picked = pick_items(plan)
    assert set(picked) == {"images", "videos"}
    assert picked == pick_items(plan)
    numbers = [int(item.source_id[1:]) for item in picked["images"]]
    assert numbers == sorted(set(numbers))
    assert max(numbers) - min(numbers) > 40


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (12_900_000, "12.9 MB"), (5e15, "5000.0 TB")])
def test_readable_bytes(count: float, text: str) -> None:
    assert readable_bytes(count) == text
