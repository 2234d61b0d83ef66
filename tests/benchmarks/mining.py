"""What the machinery of mining costs: overhead over a plain loop, one actor against two, memory over many items.

Run it with `make bench`, when nothing else runs. The proposer is a dummy that computes for 20 ms, so that everything
else is overhead. Ratios are what counts; seconds belong to this machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import ray

from tests.benchmarks.dummy_proposer import PROPOSAL_S, DummyProposer
from tests.make_media import make_pictures
from trackmill.models import registry
from trackmill.models.proposers import GraphSettings, Proposer
from trackmill.pipeline.mining.inline import InlineExecutor
from trackmill.pipeline.mining.pool import RayPool
from trackmill.pipeline.mining.prepare import prepare_mining
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.workers.task import UnitTask
from trackmill.pipeline.workers.work_times import WorkTimes

ITEMS_PER_UNIT = 20
DUMMY = "tests.benchmarks.dummy_proposer:DummyProposer"


def install_dummy() -> None:
    """Put the dummy in the place of `graph`, in this process; in actors through Ray's worker setup hook."""
    # By the module's name: the dictionary itself would travel to the actors as a copy.
    registry.PROPOSERS["graph"] = replace(registry.PROPOSERS["graph"], target=DUMMY)


def plain_loop(folder: Path, items: Sequence) -> float:
    """Seconds an item of the least that could be done: read, propose, write the JPEG bytes down."""
    source = open_source("images", ReadSettings())
    proposer: Proposer = DummyProposer(GraphSettings(backend="skimage"))
    begin = time.perf_counter()
    with open(folder / "plain.bin", "wb") as handle:
        for item in items:
            media = source.read(item)
            proposer.propose(media.frames)
            handle.write(media.frames[0].encoded or media.frames[0].image.tobytes())
    return (time.perf_counter() - begin) / len(items)


def tasks(plan) -> list[UnitTask]:
    """All units of a plan."""
    units = (plan.unit(number) for number in range(plan.num_units))
    return [UnitTask(unit=n, items=items, positions=list(range(len(items)))) for n, items in enumerate(units)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=240)
    parser.add_argument("--memory-items", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only-light", action="store_true", help="measure the speed of light, and nothing else")
    options = parser.parse_args()
    install_dummy()
    hook = {"worker_process_setup_hook": install_dummy}
    ray.init(address="local", log_to_driver=False, include_dashboard=False, runtime_env=hook)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder / "in", count=max(options.items, options.memory_items), height=96, width=128)
        if not options.only_light:
            overhead(folder, options.items, options.repeats)
        speed_of_light(folder, options.items)
        if options.only_light:
            return
        memory(folder, options.memory_items)


def overhead(folder: Path, num_items: int, repeats: int) -> None:
    """Plain loop, inline executor, one actor, two actors: interleaved, medians."""
    seconds: dict[str, list[float]] = {"plain loop": [], "inline": [], "1 actor": [], "2 actors": []}
    for repeat in range(repeats):
        for kind in seconds:
            values = {"graph": {"backend": "skimage"}, "shards": {"unit_frames": ITEMS_PER_UNIT}}
            values["run"] = {"actors": 2 if kind == "2 actors" else 1}
            output = str(folder / f"{kind}-{repeat}")
            run = prepare_mining(mine_config(values, "benchmark"), [str(folder / "in")], output, limit=num_items)
            work = tasks(run.plan)
            if kind == "plain loop":
                seconds[kind].append(plain_loop(folder, [item for task in work for item in task.items]))
                continue
            executor = (
                InlineExecutor(run.job(), lambda states: None)
                if kind == "inline"
                else RayPool(run.job(), run.config.run, False, lambda states: None)
            )
            # Starting workers is a cost of its own, paid once: the clock starts when each has finished a unit.
            results = executor.run(iter(work))
            warm = sum(next(results).items for _ in range(values["run"]["actors"]))
            begin = time.perf_counter()
            items = sum(result.items for result in results)
            assert items + warm == num_items
            seconds[kind].append((time.perf_counter() - begin) / items)
    loop = statistics.median(seconds["plain loop"])
    print(
        f"{num_items} pictures, units of {ITEMS_PER_UNIT}, a proposer of {PROPOSAL_S * 1000:.0f} ms, {repeats} repeats"
    )
    for kind, measured in seconds.items():
        median = statistics.median(measured)
        spread = f"{min(measured) * 1000:.2f}-{max(measured) * 1000:.2f}"
        print(f"  {kind:<11} {median * 1000:6.2f} ms an item ({spread})  {median / loop:.3f} of the plain loop")
    one, two = statistics.median(seconds["1 actor"]), statistics.median(seconds["2 actors"])
    print(f"  two actors are {one / two:.2f} times as fast as one")


def speed_of_light(folder: Path, num_items: int) -> None:
    """The share of its time in which a model of 20 ms works, as the run says it and as the wall clock does."""
    values = {"graph": {"backend": "skimage"}, "shards": {"unit_frames": ITEMS_PER_UNIT}, "run": {"actors": 1}}
    print(f"speed of light, {num_items} pictures in units of {ITEMS_PER_UNIT}, a model of {PROPOSAL_S * 1000:.0f} ms")
    for kind in ("inline", "1 actor"):
        run = prepare_mining(
            mine_config(values, "benchmark"), [str(folder / "in")], str(folder / f"light-{kind}"), limit=num_items
        )
        executor = (
            InlineExecutor(run.job(), lambda states: None)
            if kind == "inline"
            else RayPool(run.job(), run.config.run, False, lambda states: None)
        )
        results = executor.run(iter(tasks(run.plan)))
        first = next(results)
        begin, told = time.perf_counter(), WorkTimes()
        items = 0
        for result in results:
            told, items = told + result.times, items + result.items
        wall = time.perf_counter() - begin
        spent = " ".join(f"{name} {seconds / told.total:.2%}" for name, seconds in dataclasses.asdict(told).items())
        print(f"  {kind:<8} {items * PROPOSAL_S / wall:.3f} by the clock, {told.model / told.total:.3f} told: {spent}")
        assert items + first.items == num_items
        light = executor.light.sum_up()
        assert light is not None
        print(f"           {light.line()}")


def memory(folder: Path, num_items: int) -> None:
    """Resident memory of one miner after each tenth of its items."""
    values = {"graph": {"backend": "skimage"}, "shards": {"unit_frames": num_items // 10}}
    run = prepare_mining(
        mine_config(values, "benchmark"), [str(folder / "in")], str(folder / "memory"), limit=num_items
    )
    process, resident = psutil.Process(), []
    for _ in InlineExecutor(run.job(), lambda states: None).run(iter(tasks(run.plan))):
        resident.append(process.memory_info().rss / 1e6)
    print(f"memory over {num_items} items, MB after each tenth: " + " ".join(f"{value:.0f}" for value in resident))
    print(f"  growth from the second tenth to the last: {resident[-1] - resident[1]:+.1f} MB")


if __name__ == "__main__":
    main()
