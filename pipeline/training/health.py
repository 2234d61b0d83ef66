"""Whether training is still learning: steps that taught nothing are counted, told, and end the run when they go on.

A step teaches nothing where its loss or its gradients are no numbers, so that it is left out, and where all gradients
are exactly zero, as when no picture of a batch had anything to compare.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from trackmill.schemas.errors import JobError

WINDOW = 100
"""Shares of steps are taken over the last so many."""
FEWEST = 20
"""After fewer steps no share is formed."""
NAMED = 32
"""Largest number of samples that a message names."""


class NonFinite(JobError):
    """Loss or gradients were nan or infinite for too long; says where, in which parts, and for which samples."""


class NothingLearnt(JobError):
    """Step after step there was nothing to learn from; says what was missing."""


class Health:
    """Looks at the row of every step.

    Args:
        max_nonfinite: so many steps, one after the other, may be left out because they gave no numbers.
        max_skipped: share of the last `WINDOW` steps that may be.
        skipped: steps left out in earlier runs that this one goes on from.
        needed: names of numbers that must not be zero in every step, see `Task.needed`.
        samples: (step, ranks with a loss that is no number; empty for all) -> keys of the samples of that step.
    """

    def __init__(
        self,
        max_nonfinite: int,
        max_skipped: float,
        *,
        skipped: int = 0,
        needed: Sequence[str] = (),
        samples: Callable[[int, Sequence[int]], Sequence[str]] = lambda step, ranks: (),
    ) -> None:
        self._max_nonfinite, self._max_skipped, self._samples = max_nonfinite, max_skipped, samples
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._zero_for = dict.fromkeys(("grad_norm", *needed), 0)
        self._seen = 0
        self.skipped = skipped
        """Steps left out since the beginning of training."""

    @property
    def healthy(self) -> bool:
        """Whether the last step gave numbers."""
        return self._in_a_row == 0

    def look(self, row: Mapping[str, float], bad_ranks: Sequence[int] = ()) -> str:
        """Take note of a step; returns what people should know about it, mostly nothing.

        Args:
            row: numbers of the step over all ranks, `step`, `loss` and `grad_norm` among them. `loss_scale` is there
                in float16: while it is above 1 it is still being looked for, and an overflow is no fault.
            bad_ranks: those whose own loss was no number.

        Raises:
            NonFinite: too many steps gave no numbers.
            NothingLearnt: all of the last `WINDOW` steps had nothing to learn from.
        """
        self._seen += 1
        self._look_for_zeros(row)
        finite = math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) and not row.get("kept_statistics")
        self.skipped += not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]))
        if not finite and math.isfinite(row["loss"]) and row.get("loss_scale", 1.0) > 1:
            return ""
        self._recent.append(not finite)
        self._in_a_row = 0 if finite else self._in_a_row + 1
        if finite:
            return ""
        told = f"step {row['step']:.0f}: {self._what(row)}; {self._named(row, bad_ranks)}"
        share = sum(self._recent) / len(self._recent)
        advice = (
            "lower optim.lr or lengthen the warm-up, look at the data there, or train in float32 (--allow-changed lets "
            "a run go on with other settings). The last checkpoint is whole"
        )
        if self._in_a_row >= self._max_nonfinite:
            raise NonFinite(f"{told}. That makes {self._in_a_row} steps in a row; {advice}")
        if len(self._recent) >= FEWEST and share > self._max_skipped:
            raise NonFinite(
                f"{told}. That makes {sum(self._recent)} of the last {len(self._recent)} steps, more than "
                f"max_skipped = {self._max_skipped:g} allows; {advice}"
            )
        return f"{told}; {self.skipped} steps were left out so far"

    def at_the_end(self, whole: bool) -> str:
        """After the last step; returns what people should know.

        Args:
            whole: this process took all steps of the run.

        Raises:
            NothingLearnt: nothing was to be learnt in any step of a whole run of some length.
        """
        for name, steps in self._zero_for.items():
            if self._seen and steps == self._seen:
                text = _nothing(name, steps)
                if whole and steps >= self._max_nonfinite:
                    raise NothingLearnt(text)
                return text
        return f"{self.skipped} steps were left out, since they gave no numbers" if self.skipped else ""

    def _look_for_zeros(self, row: Mapping[str, float]) -> None:
        for name in self._zero_for:
            self._zero_for[name] = self._zero_for[name] + 1 if row.get(name) == 0 else 0
            if self._zero_for[name] == WINDOW:
                raise NothingLearnt(_nothing(name, WINDOW))

    def _what(self, row: Mapping[str, float]) -> str:
        if row.get("kept_statistics"):
            return "a batch overflowed the statistics of batch norm, which were left as they were"
        bad = ", ".join(f"{name} {value}" for name, value in row.items() if not math.isfinite(value))
        return f"no numbers came out ({bad}), so the step was left out"

    def _named(self, row: Mapping[str, float], bad_ranks: Sequence[int]) -> str:
        keys = self._samples(int(row["step"]), bad_ranks)
        if not keys:
            return "its samples are not known"
        more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
        return f"its samples are among {', '.join(keys[:NAMED])}{more}"


def _nothing(name: str, steps: int) -> str:
    if name == "grad_norm":
        return (
            f"all gradients were exactly zero in all of the last {steps} steps, so nothing is learnt: either no sample "
            "gave anything to compare (look at the objects of the data with trackmill inspect, and at the recipe's "
            "objects, views and loss), or a loss of your own does not reach the network, as where it is computed from "
            "what was made without gradients"
        )
    return (
        f"{name} was 0 in all of the last {steps} steps, so what it counts is not learnt from: look at the objects of "
        "the data (trackmill inspect) and at the recipe's objects and views"
    )
