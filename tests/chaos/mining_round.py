"""One data set, mined while things happen to everybody who mines it, and then looked at."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.chaos.checker import faults
from tests.chaos.cluster import Node
from tests.chaos.in_hand import Charges, begun, held_by
from tests.chaos.job import Job
from tests.chaos.processes import descendants, is_running, send
from tests.chaos.repairs import Repairs
from tests.chaos.schedule import Event
from tests.chaos.setting import ACTORS, HEAVY, ITEM_TIMEOUT_S, UNIT_ITEMS, Setting
from trackmill.pipeline.shards.verify import verify

LOOK_S = 0.1
PATIENCE_S = 8.0
"""An event comes after so long even without progress: a run in trouble gets no rest."""
RESIGN_S = 1.5
"""An event that is due, and whose victims do not exist (yet), gives way to the next after so long."""
STALL_S = 420.0
"""Nobody dies and nothing is done for so long: the run hangs."""
QUICK_ENDS = 25
GOOD_CODES = {0, 1, 4, 130, -signal.SIGKILL, -signal.SIGTERM}
ACTOR = "MinerActor"
PART_CLAIM_S = 6.0


class Trouble(Exception):
    """The run does not go on; the text says what is known."""


class Round:
    """See the module.

    Args:
        setting: of the run.
        number: of the data set.
        kind: `disk` or `store`: where it is written.
        enough: whether nothing more shall happen; the data set is still finished and compared.
    """

    def __init__(self, setting: Setting, number: int, kind: str, enough: Callable[[], bool]) -> None:
        self._setting, self._kind, self._enough = setting, kind, enough
        self._name = f"out-{number:04d}"
        self._ledger, self._cluster = setting.ledger, setting.cluster
        self._repairs = Repairs(setting.cluster)
        self._charges = Charges()
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._units = self._units_at_event = self._ends_in_a_row = 0
        self._event: Event | None = None
        self._event_at = self._moved_at = time.monotonic()
        self._due_since = 0.0
        self._jobs = self._make_jobs()
        self._driver = self._jobs[0]
        self._left = list(self._jobs)

    def run(self) -> list[str]:
        """Mine it; what is wrong with the result.

        Raises:
            Trouble: it cannot be mined.
        """
        self._ledger.pause()
        try:
            self._mine()
            return self._look()
        finally:
            self._calm()
            for job in self._jobs:
                job.end()

    # How it is mined

    def _make_jobs(self) -> list[Job]:
        setting = self._setting
        extra = {"RAY_ADDRESS": self._cluster.address}
        if self._kind == "store":
            extra |= setting.store.environment
            output = setting.store.url(self._name)
        else:
            output = str((setting.disk.folder if setting.disk else setting.folder) / self._name)
        command = [*setting.words(), *setting.command(output)]
        environment, logs = self._cluster.env(**extra), setting.folder / "logs"
        jobs = [Job("driver", [*command, "--workers", str(ACTORS)], environment, logs / f"{self._name}-driver.log")]
        for index in range(1, setting.parts + 1):
            words = [*command, "--part", f"{index}/{setting.parts}", "--set", f"run.claim_expires_s={PART_CLAIM_S}"]
            jobs.append(Job(f"part {index}", words, environment, logs / f"{self._name}-part-{index}.log"))
        return jobs

    def _output(self) -> Path:
        """As this process sees it, if it is local."""
        setting = self._setting
        return (setting.disk.seen if setting.disk else setting.folder) / self._name

    def _count(self) -> int:
        if self._kind == "store":
            return self._setting.store.units(self._name)
        try:
            with os.scandir(self._output() / "receipts") as found:
                return sum(each.name.startswith("part-") and each.name.endswith(".parquet") for each in found)
        except FileNotFoundError:
            return 0  # nothing has begun

    def _mine(self) -> None:
        """Until the driver and all parts have ended in good order."""
        for job in self._left:
            self._start(job)
        while self._left:
            time.sleep(LOOK_S)
            for job in self._left.copy():
                code = job.ended()
                if code == 0:
                    self._left.remove(job)
                elif code is not None:
                    self._ended(job, code)
            self._repairs.look()
            self._due()
            self._follow()
            if self._left and not self._enough():
                self._act()

    def _start(self, job: Job) -> None:
        self._setting.starts += 1
        if job is self._driver:
            self._charges.forget()
        job.start()

    def _ended(self, job: Job, code: int) -> None:
        self._ends_in_a_row += 1
        if code not in GOOD_CODES:
            raise Trouble(f"{job.name} ended with {code}:\n{job.tail()}")
        if self._ends_in_a_row > QUICK_ENDS:
            raise Trouble(f"{job.name} ended {QUICK_ENDS} times without progress; the last time:\n{job.tail()}")
        self._start(job)

    def _follow(self) -> None:
        """Note progress, or that there has been none for too long."""
        units = self._count()
        if units > self._units:
            self._units, self._moved_at, self._ends_in_a_row = units, time.monotonic(), 0
            self._ledger.moved(HEAVY)
        if self._repairs.failed:
            raise Trouble(f"the cluster cannot be started again: {self._repairs.failed}")
        since = max(self._moved_at, self._repairs.moved)
        if time.monotonic() - since > STALL_S and not self._repairs.busy:
            tails = "\n".join(f"--- {job.name}\n{job.tail()}" for job in self._jobs)
            raise Trouble(f"no unit was done for {STALL_S:.0f} s, {self._units} are done:\n{tails}")

    def _look(self) -> list[str]:
        """Compare what was made."""
        setting = self._setting
        self._calm()
        self._ledger.pause()
        result = self._output()
        if self._kind == "store":
            result = setting.folder / self._name
            setting.store.fetch(self._name, result)
        found = faults(result, setting.undisturbed, setting.expected)
        found += [f"verify: {fault}" for fault in verify(str(result))]
        found += [f"{job.name} met {count} bugs: {job.log}" for job in self._jobs if (count := job.bugs())]
        setting.items_done += len(setting.expected)
        if not found:
            shutil.rmtree(result)
            if self._kind == "store":
                setting.store.remove(self._name)
        elif result.is_relative_to("/proc"):
            shutil.copytree(result, setting.folder / f"kept-{self._name}")  # the disk goes with the run
        return found

    # What happens to it

    def _act(self) -> None:
        """Let the next event happen, if it is time to."""
        if self._event is None:
            self._event, self._event_at = next(self._setting.events), time.monotonic()
            self._units_at_event, self._due_since = self._units, 0.0
        now = time.monotonic()
        if self._units - self._units_at_event < self._event.gap and now - self._event_at < PATIENCE_S:
            return
        self._due_since = self._due_since or now
        resigns = now - self._due_since > RESIGN_S or not self._possible(self._event.kind)
        if self._happen(self._event) or resigns:
            self._event = None

    def _possible(self, kind: str) -> bool:
        setting = self._setting
        if kind == "no room on the disk":
            return self._kind == "disk" and setting.disk is not None
        if " part" in kind:
            return any(job in self._left for job in self._jobs[1:])
        return self._driver in self._left or kind == "the clock jumps"

    def _happen(self, event: Event) -> bool:
        """Whether it could be done."""
        if not self._possible(event.kind):
            return False
        acts: dict[str, Callable[[Event], bool]] = {
            "SIGKILL of an actor": self._kill_actor,
            "SIGKILL of a part": self._kill_part,
            "SIGKILL of the driver": self._kill_driver,
            "SIGKILL of a raylet": lambda event: self._kill_raylet(event, False),
            "SIGKILL of a raylet and all on its node": lambda event: self._kill_raylet(event, True),
            "SIGKILL of the GCS": self._kill_gcs,
            "SIGTERM of the driver": self._term_driver,
            "SIGTERM of an actor": self._term_actor,
            "SIGSTOP of an actor, seconds": lambda event: self._stop_actor(event, 1 + 4 * event.amount),
            "SIGSTOP of an actor, longer than any limit": lambda event: self._stop_actor(event, ITEM_TIMEOUT_S + 5),
            "SIGSTOP of a part, longer than its claim": self._stop_part,
            "SIGSTOP of a raylet until it is given up": self._stop_raylet,
            "no room on the disk": self._fill_disk,
            "the clock jumps": self._set_clock,
        }
        return acts[event.kind](event)

    def _kill_actor(self, event: Event) -> bool:
        actors = self._cluster.actors(ACTOR)
        for place in range(len(actors)):
            process = actors[(event.choose(actors) + place) % len(actors)]
            if (again := self._killed(process)) is not None:
                self._ledger.done(event.kind, kills=1, again=again)
                return True
        return False

    def _killed(self, process: psutil.Process) -> int | None:
        """Kill a worker, unless it has an item in hand that was in hand at a death before.

        Returns:
            Items to be done again; None if it lives.
        """
        if not send(process.pid, signal.SIGSTOP):
            return None
        held = held_by(process.pid, self._setting.tmp)
        if not self._charges.allows(held):
            send(process.pid, signal.SIGCONT)
            return None
        send(process.pid, signal.SIGKILL)
        self._charges.charge(held)
        return begun(held, UNIT_ITEMS)

    def _kill_part(self, event: Event) -> bool:
        job = self._running_part(event)
        if job is None or job.process is None:
            return False
        again = self._killed(psutil.Process(job.process.pid))
        if again is None:
            return False
        self._ledger.done(event.kind, kills=1, again=again)
        return True

    def _kill_driver(self, event: Event) -> bool:
        again = self._begun_by_all()
        if not self._driver.kill():
            return False
        self._ledger.done(event.kind, kills=1, again=again)
        return True

    def _term_driver(self, event: Event) -> bool:
        if self._driver.process is None or not send(self._driver.process.pid, signal.SIGTERM):
            return False
        self._ledger.done(event.kind)
        return True

    def _term_actor(self, event: Event) -> bool:
        actors = self._cluster.actors(ACTOR)
        if not actors or not send(actors[event.choose(actors)].pid, signal.SIGTERM):
            return False
        self._ledger.done(event.kind)
        return True

    def _kill_raylet(self, event: Event, whole: bool) -> bool:
        node = self._node(event)
        if node is None or (raylet := node.child("raylet")) is None:
            return False
        actors = node.actors(ACTOR)
        for actor in actors:
            send(actor.pid, signal.SIGSTOP)
        held = [held_by(actor.pid, self._setting.tmp) for actor in actors]
        allowed = all(self._charges.allows(each) for each in held)
        if allowed:
            send(raylet.pid, signal.SIGKILL)
            if whole:
                for process in descendants(node.process.pid):
                    send(process.pid, signal.SIGKILL)
        for actor in actors:
            send(actor.pid, signal.SIGCONT)
        if allowed:
            # Alone, an actor works on until it notices: then any item of its unit may be in hand.
            for each in held:
                self._charges.charge(each, 0 if whole else UNIT_ITEMS)
            self._ledger.done(event.kind, kills=1, again=sum(begun(each, UNIT_ITEMS) for each in held))
        return allowed

    def _kill_gcs(self, event: Event) -> bool:
        head = self._cluster.head
        if self._repairs.busy or head is None or (gcs := head.child("gcs_server")) is None:
            return False
        again = self._begun_by_all()
        send(gcs.pid, signal.SIGKILL)
        self._ledger.done(event.kind, kills=1, again=again)
        return True

    def _begun_by_all(self) -> int:
        held = [held_by(each.pid, self._setting.tmp) for each in self._cluster.actors(ACTOR)]
        return sum(begun(each, UNIT_ITEMS) for each in held)

    def _node(self, event: Event) -> Node | None:
        raylets = self._cluster.raylets
        if self._repairs.busy or not raylets:
            return None
        node = raylets[event.choose(raylets)]
        return node if node.alive() else None

    def _running_part(self, event: Event) -> Job | None:
        parts = [job for job in self._jobs[1:] if job.process is not None]
        return parts[event.choose(parts)] if parts else None

    def _stop_actor(self, event: Event, seconds: float) -> bool:
        actors = self._cluster.actors(ACTOR)
        if not actors:
            return False
        # With its children: the whole machine stands still, as when a virtual one is moved.
        actor = actors[event.choose(actors)]
        self._stop([actor, *descendants(actor.pid)], seconds)
        self._ledger.done(event.kind)
        return True

    def _stop_part(self, event: Event) -> bool:
        job = self._running_part(event)
        if job is None or job.process is None:
            return False
        self._stop([psutil.Process(job.process.pid), *job.family()], 3 * PART_CLAIM_S)
        self._ledger.done(event.kind)
        return True

    def _stop_raylet(self, event: Event) -> bool:
        node = self._node(event)
        if node is None or (raylet := node.child("raylet")) is None:
            return False
        self._stop([raylet], 15)
        self._ledger.done(event.kind)
        return True

    def _stop(self, processes: list[psutil.Process], seconds: float) -> None:
        for process in processes:
            send(process.pid, signal.SIGSTOP)

        def go_on() -> None:
            for process in processes:
                if is_running(process):
                    send(process.pid, signal.SIGCONT)

        self._later.append((time.monotonic() + seconds, go_on))

    def _fill_disk(self, event: Event) -> bool:
        disk = self._setting.disk
        assert disk is not None
        with contextlib.suppress(OSError):
            disk.fill()
        self._later.append((time.monotonic() + 1 + 5 * event.amount, disk.free))
        self._ledger.done(event.kind)
        return True

    def _set_clock(self, event: Event) -> bool:
        hours = round(16 * event.amount - 8, 2)
        self._setting.clock.write_text(str(hours * 3600))
        self._ledger.done(event.kind)
        return True

    def _due(self) -> None:
        """What stands still goes on when its time has come."""
        now = time.monotonic()
        due = [act for when, act in self._later if when <= now]
        self._later = [(when, act) for when, act in self._later if when > now]
        for act in due:
            act()

    def _calm(self) -> None:
        """Nothing stands still any more, the disk has room, the clock is right, the cluster is whole."""
        for _, act in self._later:
            act()
        self._later = []
        if self._setting.disk is not None:
            self._setting.disk.free()
        self._setting.clock.unlink(missing_ok=True)
        self._repairs.wait()
