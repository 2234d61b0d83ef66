"""The speed of light of a run: how much of the time of its workers their models were busy, and what the rest went to.

Worker time counts from the first unit that is given to anybody, or from when a worker is ordered, until the worker is
gone or the run is over. So a model that is loaded late, a worker that died in the middle of a unit, and one that has
nothing to do at the end all cost speed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from trackmill.pipeline.console.words import duration
from trackmill.pipeline.workers.work_times import WorkTimes

_NAMES = {
    "reading": "reading",
    "writing": "encoding and writing",
    "publishing": "publishing",
    "starting": "starting workers",
    "waiting": "waiting for work",
    "lost": "work that was lost",
}
_TOLD = 0.0005
"""Shares that are told; smaller ones would be 0.0 %."""
_WORST_AT_LEAST = 0.25
"""Only workers that were there for so much of the run can be called the slowest."""


@dataclass(slots=True)
class _Account:
    """One worker, in seconds of the driver's clock."""

    ordered: float
    name: str = ""
    ready: float | None = None
    gone: float | None = None
    lost: bool = False
    times: WorkTimes = field(default_factory=WorkTimes)


@dataclass(frozen=True, slots=True)
class Light:
    """Where the time of all workers went.

    Args:
        workers: that there were.
        seconds: of all of them together.
        spent: seconds by what they were spent on: `model`, and what `WorkTimes` and the module say.
        worst: name and speed of the slowest worker, where there are several.
    """

    workers: int
    seconds: float
    spent: dict[str, float]
    worst: tuple[str, float] | None = None

    @property
    def speed(self) -> float:
        """Share of the time in which the model worked, 0 to 1."""
        return self.spent.get("model", 0.0) / self.seconds if self.seconds else 0.0

    def line(self) -> str:
        """`speed of light 0.97: the model worked 3 h 12 min of 3 h 18 min of worker time; the rest: reading 1.9 %`."""
        shares = {name: self.spent.get(key, 0.0) / self.seconds for key, name in _NAMES.items()}
        told = sorted(((share, name) for name, share in shares.items() if share >= _TOLD), reverse=True)
        rest = ", ".join(f"{name} {share:.1%}".replace("%", " %") for share, name in told)
        line = f"speed of light {self.speed:.2f}: the model worked {duration(self.spent.get('model', 0.0))} of "
        line += f"{duration(self.seconds)} of worker time"
        line += f"; the rest: {rest}" if rest else ""
        return line + (f"; slowest worker {self.worst[0]}: {self.worst[1]:.2f}" if self.worst else "")


class SpeedOfLight:
    """Keeps account of a run, from the driver's side; workers tell what their own seconds went to.

    Args:
        clock: seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin: float | None = None
        self._accounts: dict[int, _Account] = {}

    def ordered(self, worker: int) -> None:
        """A worker is to be started."""
        self._accounts[worker] = _Account(self._clock())

    def ready(self, worker: int, name: str) -> None:
        """It has loaded its model."""
        account = self._accounts[worker]
        account.ready, account.name = self._clock(), name

    def given(self) -> None:
        """A unit is given to somebody: with the first one the time begins."""
        if self._begin is None:
            self._begin = self._clock()

    def told(self, worker: int, times: WorkTimes) -> None:
        """A worker says what its seconds were spent on since it was ready, or since it last said so."""
        self._accounts[worker].times += times

    def dropped(self, worker: int) -> None:
        """A worker has given up a unit, and does not say how long it worked on it."""
        self._accounts[worker].lost = True

    def gone(self, worker: int, lost: bool = False) -> None:
        """A worker has ended; `lost`: with a unit in hand."""
        account = self._accounts[worker]
        account.gone = self._clock()
        account.lost |= lost

    def sum_up(self) -> Light | None:
        """Where the time went until now; None where no unit was given."""
        if self._begin is None:
            return None
        now, spent = self._clock(), Counter[str]()
        speeds: list[tuple[float, str]] = []
        seconds = 0.0
        for account in self._accounts.values():
            end = now if account.gone is None else account.gone
            life = end - max(account.ordered, self._begin)
            if life <= 0:
                continue
            seconds += life
            own = self._spent(account, end, life)
            spent.update(own)
            if life >= _WORST_AT_LEAST * (now - self._begin) and account.name:
                speeds.append((own["model"] / life, account.name))
        speed, name = min(speeds, default=(0.0, ""))
        worst = (name, speed) if len(speeds) > 1 else None
        return Light(len(self._accounts), seconds, dict(spent), worst) if seconds else None

    def _spent(self, account: _Account, end: float, life: float) -> dict[str, float]:
        """Seconds of one worker; they add up to `life`."""
        assert self._begin is not None
        born = max(account.ordered, self._begin)
        starting = max(0.0, (end if account.ready is None else min(account.ready, end)) - born)
        times = account.times
        # It was ready before the first unit was given to anybody: that is not counted.
        early = min(times.waiting, max(0.0, self._begin - account.ready) if account.ready is not None else 0.0)
        left = life - starting - (times.total - early)
        if left < 0:  # its clock and ours are two clocks
            early, left = early - left, 0.0
        spent = {"model": times.model, "reading": times.reading, "writing": times.writing}
        spent |= {"publishing": times.publishing, "starting": starting, "lost": left if account.lost else 0.0}
        spent["waiting"] = max(0.0, times.waiting - early) + (0.0 if account.lost else left)
        return spent
