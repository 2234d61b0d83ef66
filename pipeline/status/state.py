"""What `trackmill status` finds out, in plain values: one class for data sets, sidecars and training runs."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.status.pace import Pace

Kind = Literal["data set", "sidecar", "training run"]
State = Literal["done", "going", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A sign of life: what was written, and how many seconds ago by the clock of `Status.clock`.

    Args:
        what: such as `receipt part-00000012`.
        age_s: seconds.
        progress: work was finished; without it, a process only lives.
    """

    what: str
    age_s: float
    progress: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds the output or a part of it.

    Args:
        who: job, process and machine.
        since: its own local time.
        beat_s: seconds since it last said that it lives.
        alive: it has said so lately, or is a process of this machine that lives.
    """

    who: str
    since: str
    beat_s: float
    alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Quarantined items of one error class: how many, and some of them as (source id, reason)."""

    error_class: str
    count: int
    examples: list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """What the receipts that were read say.

    Args:
        receipts, of: receipts that were read, of how many there are. Counts are of those that were read.
        items: items in them.
        statuses: items by status.
        quarantined: items.
        reasons: the most frequent error classes, the largest first.
        damaged: receipts that cannot be read, each with the reason.
    """

    receipts: int
    of: int
    items: int
    statuses: dict[str, int]
    quarantined: int
    reasons: list[Reason]
    damaged: list[str]

    @property
    def share(self) -> float:
        """Of the items that were looked at."""
        return self.quarantined / self.items if self.items else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSeen:
    """A checkpoint: its step, its folder, seconds since it was written, bytes, what is wrong with it ("" if whole).

    `whole` compares lengths; `trackmill train` reads every byte before it goes on from there.
    """

    step: int
    url: str
    age_s: float
    num_bytes: int
    wrong: str = ""


@dataclass(slots=True, kw_only=True)
class Status:
    """How far an output is.

    Args:
        kind: what it is.
        url: its root, without credentials.
        title: what made it, in a few words.
        state: `done`; `going`: a living process holds it; `stopped`: neither.
        things: what `done` and `total` count: units, parts or steps.
        done, total: of them.
        items_done, items: items in them; None where there are none.
        items_exact: `items_done` was counted; otherwise it is estimated from the number of units.
        pace: things a second.
        quarantine: None for a training run.
        within_limit: quarantined items are no more than `run.max_quarantined` of the data set allows.
        numbers: the newest numbers of a training run, by name.
        checkpoints: the newest of a training run, the newest first.
        holders: who holds it.
        signs: signs of life, the newest first.
        clock: whose clock ages are by: `store` or `this machine`.
        notes: what people should know.
        next: what to type next.
    """

    kind: Kind
    url: str
    title: str
    state: State
    things: str
    done: int
    total: int
    items_done: int | None = None
    items: int | None = None
    items_exact: bool = True
    pace: Pace = field(default_factory=Pace)
    quarantine: Quarantine | None = None
    within_limit: bool = True
    numbers: dict[str, float] = field(default_factory=dict)
    checkpoints: list[CheckpointSeen] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)
    clock: str = "this machine"
    notes: list[str] = field(default_factory=list)
    next: str = ""

    @property
    def left(self) -> int:
        """Things to do."""
        return max(0, self.total - self.done)

    @property
    def eta_s(self) -> float | None:
        """Seconds until all is done at the present rate; None where it is not known, or nothing is left."""
        return self.pace.left_s(self.left) if self.left else None

    @property
    def last_sign_s(self) -> float | None:
        """Seconds since the last sign of life."""
        return min((sign.age_s for sign in self.signs), default=None)

    @property
    def last_progress_s(self) -> float | None:
        """Seconds since work was last finished."""
        return min((sign.age_s for sign in self.signs if sign.progress), default=None)

    def is_stale(self, after_s: float) -> bool:
        """Whether it is not done, and nothing was heard for so long."""
        age = self.last_sign_s
        return self.state != "done" and (age is None or age > after_s)

    def exit_code(self, stale_after_s: float | None = None) -> ExitCode:
        """`FAILED` where it is stale, `INCOMPLETE` where it is done with more quarantined than allowed, else `FINE`."""
        if stale_after_s is not None and self.is_stale(stale_after_s):
            return ExitCode.FAILED
        return ExitCode.FINE if self.within_limit else ExitCode.INCOMPLETE

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is no number is None."""
        found: dict[str, Any] = _finite(dataclasses.asdict(self))
        more: dict[str, Any] = {"left": self.left, "eta_s": self.eta_s}
        more |= {"last_sign_s": self.last_sign_s, "last_progress_s": self.last_progress_s}
        return {**found, **_finite(more)}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
