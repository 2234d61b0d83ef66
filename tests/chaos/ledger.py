"""What was done to a run and what it cost: the table that is printed in the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

KILLS = "kills"
STILL_S = 1.0
"""Without progress for longer than this, time is lost."""


@dataclass(slots=True)
class Line:
    """One kind of event.

    Args:
        times: how often it was done.
        kills: processes that got SIGKILL from it, by the harness itself.
        again: items (or steps) that were done and had to be done again because of it.
        still_s: seconds without progress, charged to it.
    """

    times: int = 0
    kills: int = 0
    again: int = 0
    still_s: float = 0.0


@dataclass(slots=True)
class Ledger:
    """Events and their costs.

    Args:
        unit: what progress is counted in, for the table.
        log: one line for each event is added to this file.
    """

    unit: str
    log: Path | None = None
    lines: dict[str, Line] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    _moved: float = field(default_factory=time.monotonic)
    _since: list[str] = field(default_factory=list)
    _last: str = "starting"

    def line(self, kind: str) -> Line:
        """The line of a kind."""
        return self.lines.setdefault(kind, Line())

    def done(self, kind: str, kills: int = 0, again: int = 0) -> None:
        """An event was carried out."""
        line = self.line(kind)
        line.times += 1
        line.kills += kills
        line.again += again
        self._since.append(kind)
        self._last = kind
        if self.log is not None:
            with open(self.log, "a") as handle:
                handle.write(f"{time.monotonic() - self.begun:9.2f} {kind}, {again} {self.unit} again\n")

    def moved(self, heavy: tuple[str, ...] = ()) -> None:
        """Progress was seen; the time since the last is charged to the heaviest event in between, else to the last.

        Args:
            heavy: kinds, the heaviest first.
        """
        now = time.monotonic()
        still = now - self._moved - STILL_S
        if still > 0:
            blamed = next((kind for kind in heavy if kind in self._since), self._last)
            self.line(blamed).still_s += still
        self._moved, self._since = now, []

    def pause(self) -> None:
        """What passed until now is nobody's: the harness compared, or the run was over."""
        self._moved, self._since, self._last = time.monotonic(), [], "starting"

    @property
    def kills(self) -> int:
        """In all."""
        return sum(line.kills for line in self.lines.values())

    def table(self, done: int) -> list[str]:
        """Lines for people.

        Args:
            done: items or steps that had to be done.
        """
        again = sum(line.again for line in self.lines.values())
        still = sum(line.still_s for line in self.lines.values())
        seconds = time.monotonic() - self.begun
        head = f"{'what happened':<44} {'times':>6} {KILLS:>6} {self.unit + ' again':>12} {'s without progress':>19}"
        rows = [head, "-" * len(head)]
        for kind, line in sorted(self.lines.items(), key=lambda pair: (-pair[1].kills, -pair[1].times, pair[0])):
            rows.append(f"{kind:<44} {line.times:>6} {line.kills:>6} {line.again:>12} {line.still_s:>19.1f}")
        rows.append("-" * len(head))
        rows.append(f"{'all':<44} {'':>6} {self.kills:>6} {again:>12} {still:>19.1f}")
        share = done / (done + again) if done else 0.0
        rows.append(
            f"useful share: {share:.4f} of the work ({done:,} {self.unit}, {again:,} again), "
            f"{max(0.0, 1 - still / seconds):.4f} of {seconds:,.0f} s with progress; "
            f"{self.kills / seconds * 60:.1f} kills a minute"
        )
        return rows
