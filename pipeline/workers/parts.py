"""One of several processes that share the work of one output without a cluster: `--part 3/8`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trackmill.schemas.errors import InputError

_SHARE = re.compile(r"^([0-9]{1,9})/([0-9]{1,9})$")
_KUBERNETES = re.compile(r"^kubernetes/([0-9]{1,9})$")
_FORMS = (
    "give I/N, such as 3/8, slurm in a job array, or kubernetes/N in an indexed job with N completions; counted from 1"
)


@dataclass(frozen=True, slots=True)
class Part:
    """Which share of the work a process begins with.

    A share is a contiguous piece: neighbouring units lie in the same archives and videos, so a part reads and caches
    what no other part reads, and not all of them ask one object of a store at the same moment.

    Args:
        index: from 1 on.
        count: parts in all.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def own(self, units: Sequence[int]) -> Sequence[int]:
        """The share of some units."""
        return _piece(units, self.index - 1, self.count)

    def to_help(self, units: Sequence[int]) -> Iterator[int]:
        """The other shares, beginning with the next part's. Each from its end: its own part comes from the front."""
        for further in range(1, self.count):
            yield from reversed(_piece(units, (self.index - 1 + further) % self.count, self.count))


def _piece(units: Sequence[int], number: int, count: int) -> Sequence[int]:
    return units[number * len(units) // count : (number + 1) * len(units) // count]


def read_part(text: str, environment: Mapping[str, str] = os.environ) -> Part:
    """What `--part` says.

    Args:
        text: `I/N`; `slurm`: the place of this task in its job array; `kubernetes/N`: that of this pod in its indexed
            job, of N completions.
        environment: where the two schedulers say it.

    Raises:
        InputError: something else, or a scheduler that says nothing.
    """
    if text == "slurm":
        return _of_slurm(environment)
    if match := _KUBERNETES.match(text):
        index = _number(environment, "JOB_COMPLETION_INDEX", text, "a pod of an indexed job has it")
        return _checked(index + 1, int(match[1]), text)
    if match := _SHARE.match(text):
        return _checked(int(match[1]), int(match[2]), text)
    raise InputError(f"--part {text!r}: {_FORMS}")


def _of_slurm(environment: Mapping[str, str]) -> Part:
    why = "a task of a job array (sbatch --array=1-8) has it"
    index, first, last = (
        _number(environment, f"SLURM_ARRAY_TASK_{name}", "slurm", why) for name in ("ID", "MIN", "MAX")
    )
    step = max(1, _number({"SLURM_ARRAY_TASK_STEP": "1", **environment}, "SLURM_ARRAY_TASK_STEP", "slurm", why))
    return _checked((index - first) // step + 1, (last - first) // step + 1, "slurm")


def _number(environment: Mapping[str, str], name: str, text: str, why: str) -> int:
    value = environment.get(name, "")
    if not re.fullmatch(r"[0-9]{1,9}", value):
        said = f"{name} is {value[:40]!r}" if value else f"there is no {name} in the environment"
        raise InputError(f"--part {text}: {said}; {why}, elsewhere {_FORMS}")
    return int(value)


def _checked(index: int, count: int, text: str) -> Part:
    if not 1 <= index <= count:
        raise InputError(f"--part {text}: there is no part {index} of {count}; {_FORMS}")
    return Part(index, count)
