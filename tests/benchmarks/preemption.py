"""What pre-emption costs: the pool's real decisions with a simulated clock.

`python -m tests.benchmarks.preemption` runs it. Workers do units of items. Machines are taken away by a Poisson
process: every kill hits one worker, whatever it is doing, and its replacement takes some seconds to be there and to
load the model. The useful share is the time spent on items that end up in a shard, each counted once, over the time of
all workers, until the units are running out.

"A kill a minute" is read in two ways: one kill a minute somewhere in the pool (the issue's), and one a minute for each
worker, which no model that takes seconds to load survives well. Machines are not killed with their disks: what is kept
(`run.keep_s`) is on the output.

The last lines measure the driver: seconds of its processor for one unit, with a thousand workers and with ten.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from trackmill.pipeline.workers.decisions import Decisions, PoolFailed
from trackmill.pipeline.workers.inflight import InFlight
from trackmill.pipeline.workers.stopping import seconds_to_work
from trackmill.pipeline.workers.task import UnitDropped, UnitTask
from trackmill.schemas.media import WorkItem

GONE = RuntimeError("taken back")
GRACE_S = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is simulated.

    Args:
        workers: in the pool.
        unit_items, item_s: size of a unit, and seconds of an item at the model.
        start_s: until a replacement is there and has loaded its model.
        publish_s: until a unit whose items are done has its receipt.
        kill_every_s: mean seconds between two kills, in the whole pool.
        keep_s: see `run.keep_s`; 0: nothing is kept.
        notice_s: seconds between the notice and the kill; 0: there is none.
        hours: of the run, about: as many units are planned.
    """

    workers: int
    unit_items: int = 512
    item_s: float = 1.0
    start_s: float = 10.0
    publish_s: float = 3.0
    kill_every_s: float = 60.0
    keep_s: float = 15.0
    notice_s: float = 0.0
    hours: float = 8.0


@dataclass(slots=True)
class _Unit:
    """A unit in the hands of a worker: items that it had when it came, and when the worker began or will begin it."""

    task: UnitTask
    kept: int
    begun: float | None = None
    done: float = math.inf


@dataclass(slots=True)
class _Worker:
    """One simulated worker; `version` tells events that are out of date."""

    ordered: float
    ready: bool = False
    units: list[_Unit] = field(default_factory=list)
    version: int = 0
    leaving: float = math.inf


class Simulation:
    """Drives `Decisions` as `WorkerPool` does.

    Args:
        case: what is simulated.
        seed: of the kills.
    """

    def __init__(self, case: Case, seed: int = 0) -> None:
        self.case = case
        self.units = max(case.workers, int(case.hours * 3600 * case.workers / (case.unit_items * case.item_s)))
        self.decisions = Decisions(self._tasks(), case.workers, 0)
        self.random = random.Random(seed)
        self.now = 0.0
        self.events: list[tuple[float, int, str, int, int]] = []
        self.order = itertools.count()
        self.workers: dict[int, _Worker] = {}
        self.kept: dict[int, int] = {}
        self.worker_s = self.useful_s = 0.0
        self.kills = self.receipts = 0
        self.spent_s = 0.0

    def run(self) -> float:
        """The useful share, of the time until there is not enough work for all."""
        self._schedule(self.random.expovariate(1 / self.case.kill_every_s), "kill", -1)
        until = None
        while not self.decisions.finished_all:
            self._follow()
            if self.receipts >= self.units - 2 * self.case.workers and until is None:
                until = self.now, self._busy(), self._lived()
            if self.decisions.finished_all:
                break
            self.now, _, what, number, version = heapq.heappop(self.events)
            worker = self.workers.get(number)
            if what == "kill":
                self._kill()
            elif worker is not None and version in (-1, worker.version):
                getattr(self, f"_{what}")(number, worker)
        _, useful, lived = until or (self.now, self._busy(), self._lived())
        return useful / lived if lived else 0.0

    def _tasks(self) -> Iterator[UnitTask]:
        item = WorkItem(source="images", source_id="x", key="x", uri="x")
        items = [item] * self.case.unit_items
        for number in range(self.units):
            yield UnitTask(unit=number, items=items, positions=list(range(self.case.unit_items)))

    def _follow(self) -> None:
        begin = time.process_time()
        orders = self.decisions.orders()
        self.spent_s += time.process_time() - begin
        for number in orders.start:
            self.workers[number] = _Worker(self.now)
            self._schedule(self.now + self.case.start_s, "start", number)
        for number, task in orders.give:
            worker = self.workers[number]
            worker.units.append(_Unit(task, self.kept.get(task.unit, 0)))
            self._go_on(number, worker)
        for number in orders.stop:
            self._end(number)

    def _schedule(self, when: float, what: str, number: int, version: int = -1) -> None:
        heapq.heappush(self.events, (when, next(self.order), what, number, version))

    def _go_on(self, number: int, worker: _Worker) -> None:
        """Begin the next unit if nobody is at the model."""
        if any(unit.begun is not None and unit.done > self.now for unit in worker.units):
            return
        unit = next((unit for unit in worker.units if unit.begun is None), None)
        if unit is None:
            return
        unit.begun = self.now
        unit.done = self.now + (self.case.unit_items - unit.kept) * self.case.item_s
        worker.version += 1
        self._schedule(max(self.now, unit.done - 2.0), "nearly", number, worker.version)
        self._schedule(unit.done, "mined", number, worker.version)

    def _start(self, number: int, worker: _Worker) -> None:
        worker.ready = True
        self._tell("started", number, f"w{number}")

    def _nearly(self, number: int, worker: _Worker) -> None:
        self._tell("wants_more", number, worker.units[-1].task.unit)

    def _mined(self, number: int, worker: _Worker) -> None:
        self._schedule(self.now + self.case.publish_s, "published", number)
        self._go_on(number, worker)

    def _published(self, number: int, worker: _Worker) -> None:
        unit = worker.units.pop(0)
        self.useful_s += self.case.unit_items * self.case.item_s
        self.kept.pop(unit.task.unit, None)
        self.receipts += 1
        self._tell("finished", number, unit.task.unit)

    def _kill(self) -> None:
        self._schedule(self.now + self.random.expovariate(1 / self.case.kill_every_s), "kill", -1)
        alive = [number for number, worker in self.workers.items() if worker.leaving == math.inf]
        place = self.random.randrange(self.case.workers)
        if place >= len(alive):
            return  # a machine on which nobody works
        number = alive[place]
        self.kills += 1
        if not self.case.notice_s:
            self._die(number, self.workers[number])
            return
        worker = self.workers[number]
        worker.leaving = self.now + self.case.notice_s
        self._schedule(worker.leaving, "die", number)
        self._tell("leave", number)
        # What it has no time for is dropped, and kept, at once; what is nearly done goes on.
        until = self.now + seconds_to_work(min(GRACE_S, self.case.notice_s))
        for unit in list(worker.units):
            if unit.begun is None or unit.done > until:
                self._keep(unit, everything=True)
                worker.units.remove(unit)
                worker.version += 1
                self._tell("failed", number, UnitDropped("dropped"), unit.task.unit)

    def _die(self, number: int, worker: _Worker) -> None:
        for unit in worker.units:
            self._keep(unit, everything=False)
        units = tuple(InFlight(unit.task.unit, frozenset()) for unit in worker.units)
        self._end(number)
        self._tell("died", number, GONE, units, True)

    def _keep(self, unit: _Unit, everything: bool) -> None:
        """What is on the output of a unit that is broken off."""
        if unit.begun is None or not self.case.keep_s:
            return
        worked = min(self.now, unit.done) - unit.begun
        if not everything or worked < self.case.keep_s / 3:
            worked -= worked % self.case.keep_s
        self.kept[unit.task.unit] = unit.kept + int(worked / self.case.item_s)

    def _end(self, number: int) -> None:
        worker = self.workers.pop(number, None)
        if worker is not None:
            self.worker_s += self.now - worker.ordered

    def _tell(self, what: str, *arguments: object) -> None:
        begin = time.process_time()
        try:
            getattr(self.decisions, what)(*arguments)
        except KeyError:
            if what != "died":  # one that left in good order dies as well
                raise
        self.spent_s += time.process_time() - begin

    def _busy(self) -> float:
        """Useful seconds until now, those of units in hand and of what is kept among them."""
        in_hand = self.kept | {
            unit.task.unit: unit.kept
            + (0 if unit.begun is None else int((min(self.now, unit.done) - unit.begun) / self.case.item_s))
            for worker in self.workers.values()
            for unit in worker.units
        }
        return self.useful_s + sum(in_hand.values()) * self.case.item_s

    def _lived(self) -> float:
        return self.worker_s + sum(self.now - worker.ordered for worker in self.workers.values())


def table(hours: float, seeds: int) -> None:
    """Useful share of every case, the mean over some seeds."""
    print("useful share of worker time; units of 512 items of 1 s, 3 s to publish one")
    print(f"{'kills':<28}{'workers':>8}{'start':>7}  no notice: nothing kept / 15 s kept; 25 s of notice: likewise")
    for name, per_worker in (("one a minute in the pool", False), ("one a minute for each worker", True)):
        for workers in (8, 64) if per_worker else (8, 64, 1000):
            for start_s in (10.0, 30.0):
                shares = []
                for notice_s, keep_s in ((0.0, 0.0), (0.0, 15.0), (GRACE_S, 0.0), (GRACE_S, 15.0)):
                    case = Case(
                        workers=workers,
                        start_s=start_s,
                        kill_every_s=60 / workers if per_worker else 60,
                        keep_s=keep_s,
                        notice_s=notice_s,
                        hours=min(hours, 40 / workers) if per_worker else min(hours, 1000 / workers),
                    )
                    if per_worker and not keep_s:
                        shares.append("  never")  # no unit of 512 s is ever done
                        continue
                    shares.append(_share(case, seeds))
                print(f"{name:<28}{workers:>8}{start_s:>6.0f}s  " + "  ".join(shares), flush=True)


def driver(workers: int, units: int) -> float:
    """Seconds of the driver's processor for the decisions of one unit."""
    case = Case(workers=workers, unit_items=8, item_s=1, kill_every_s=1e12, hours=units * 8 / 3600 / workers)
    simulation = Simulation(case)
    simulation.run()
    return simulation.spent_s / simulation.receipts


def _share(case: Case, seeds: int) -> str:
    """The mean over the seeds; `gave up` where one of them ends as a run does that loses a unit too often."""
    try:
        return f"{sum(Simulation(case, seed).run() for seed in range(seeds)) / seeds:7.3f}"
    except PoolFailed:
        return "gave up"


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    import logging

    logging.getLogger("trackmill").setLevel(logging.CRITICAL)
    table(options.hours, options.seeds)
    for workers in (10, 1000):
        print(f"decisions of one unit, {workers} workers: {driver(workers, 20_000) * 1e6:.0f} microseconds")


if __name__ == "__main__":
    main()
