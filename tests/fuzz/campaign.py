"""One target after another is given mutated inputs; what is found is stored so that it can be tried again."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutators import Change, mutate
from tests.fuzz.outcomes import FAILURES, Kind, Outcome
from tests.fuzz.process import Child
from tests.fuzz.target import Files, Target, files_of, write_files

MODULE = "tests.fuzz.targets"
_ENOUGH = 25
"""So many findings of one target are stored; more tell nothing new."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An input that gave something that must not be.

    Args:
        target, seed, iteration: draw the same input again.
        outcome: what came.
        stored: the folder that the input lies in; "" where it was not stored.
    """

    target: str
    seed: int
    iteration: int
    outcome: Outcome
    stored: str = ""

    def __str__(self) -> str:
        again = f"--target {self.target} --seed {self.seed} --only {self.iteration}"
        return f"{self.outcome.kind.value}: {again} {self.stored}\n    {self.outcome.text}\n{_tail(self.outcome.place)}"


@dataclass(kw_only=True)
class Tally:
    """What became of the inputs of one target."""

    target: str
    kinds: Counter[Kind] = field(default_factory=Counter)
    peak_mb: int = 0
    slowest_s: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        """How many were tried."""
        return sum(self.kinds.values())


class Campaign:
    """Mutated inputs of one target, each drawn from (seed, target, iteration) alone.

    Args:
        target: what is tried.
        seed: of all choices.
        keep: folder for inputs that fail; None to store none.
        module: where a child finds the target.
    """

    def __init__(self, target: Target, seed: int, keep: Path | None = None, module: str = MODULE) -> None:
        self.target = target
        self.tally = Tally(target=target.name)
        self._seed = seed
        self._keep = keep
        self._child = Child(target, module)
        self._seeds = target.seeds()
        self._wanted = [self._baseline(files) for files in self._seeds]
        self.iteration = 0

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def run(self, iterations: int | None = None, seconds: float | None = None) -> None:
        """Go on for so many inputs, or for so long."""
        last = None if iterations is None else self.iteration + iterations
        until = None if seconds is None else time.monotonic() + seconds
        while (last is None or self.iteration < last) and (until is None or time.monotonic() < until):
            self.try_iteration(self.iteration)
            self.iteration += 1

    def draw(self, iteration: int) -> tuple[int, Files, Change]:
        """Number of the seed, the mutated files, and whether bytes or structure were changed."""
        rng = random.Random(f"{self._seed}/{self.target.name}/{iteration}")
        number = rng.randrange(len(self._seeds))
        files, change = mutate(rng, self._seeds[number], self.target.mutated, self.target.rename)
        return number, files, change

    def try_iteration(self, iteration: int) -> Outcome:
        """Try the input of an iteration and count what came."""
        return self.try_files(iteration, *self.draw(iteration))

    def try_files(self, iteration: int, number: int, files: Files, change: Change) -> Outcome:
        """Try one input, made out of the seed `number`, and count what came."""
        outcome = self.judge(self._child.try_one(files, self._seeds[number]), number, files, change)
        self.tally.kinds[outcome.kind] += 1
        self.tally.peak_mb = max(self.tally.peak_mb, outcome.peak_mb)
        self.tally.slowest_s = max(self.tally.slowest_s, outcome.cpu_s)
        if outcome.kind in FAILURES:
            finding = Finding(
                target=self.target.name,
                seed=self._seed,
                iteration=iteration,
                outcome=outcome,
                stored=self._store(iteration, files, outcome),
            )
            self.tally.findings.append(finding)
        return outcome

    def judge(self, outcome: Outcome, number: int, files: Files, change: Change) -> Outcome:
        """Whether what was understood is what the seed gave, and has to be."""
        if outcome.kind is not Kind.SAME or outcome.text == self._wanted[number]:
            return outcome
        covered = self.target.covered == "all" or (self.target.covered == "bytes" and change is Change.BYTES)
        kind = Kind.SILENT if covered and files != self._seeds[number] else Kind.DIFFERENT
        return Outcome(kind=kind, text=outcome.text, cpu_s=outcome.cpu_s, peak_mb=outcome.peak_mb)

    def _baseline(self, files: Files) -> str:
        outcome = self._child.try_one(files)
        if outcome.kind is not Kind.SAME:
            raise RuntimeError(f"{self.target.name}: a valid seed gave {outcome.kind}: {outcome.text}\n{outcome.place}")
        return outcome.text

    def _store(self, iteration: int, files: Files, outcome: Outcome) -> str:
        if self._keep is None or len(self.tally.findings) >= _ENOUGH:
            return ""
        folder = self._keep / f"{self.target.name}-{self._seed}-{iteration}"
        (folder / "input").mkdir(parents=True, exist_ok=True)
        write_files(files, folder / "input")
        about = {"kind": outcome.kind.value, "text": outcome.text, "place": outcome.place}
        (folder / "finding.json").write_text(json.dumps(about, indent=1))
        return str(folder)


def repeat(target: Target, folder: Path, module: str = MODULE) -> Outcome:
    """Try an input that was stored, or any folder."""
    child = Child(target, module)
    try:
        return child.try_one(files_of(folder / "input" if (folder / "input").is_dir() else folder))
    finally:
        child.close()


def grouped(findings: Iterable[Finding]) -> list[tuple[Finding, int]]:
    """The first finding of each kind, and how many there are; they are of one kind where only numbers differ."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        ours = re.findall(r'File "[^"]*/((?:pipeline|schemas|models|jobs)/[^"]+", line \d+)', finding.outcome.place)
        name, _, words = finding.outcome.text.partition(":")
        where = ours[-1] if ours else re.sub(r"\d+", "", words)[:60]
        groups.setdefault(f"{finding.outcome.kind} {name[:60]} {where}", []).append(finding)
    return [(group[0], len(group)) for group in groups.values()]


def table(tallies: Iterable[Tally]) -> str:
    """What became of all inputs, as Markdown."""
    counted = (Kind.ERROR, Kind.SAME, Kind.DIFFERENT, *FAILURES)
    heads = ["target", "inputs", *(kind.value for kind in counted), "slowest CPU s", "peak MB"]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for tally in tallies:
        numbers = [tally.inputs, *(tally.kinds[kind] for kind in counted)]
        cells = [tally.target, *map(str, numbers), f"{tally.slowest_s:.1f}", str(tally.peak_mb)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _tail(place: str) -> str:
    return "\n".join(f"    {line[:200]}" for line in place.strip().splitlines()[-14:])
