"""Training under real chaos: `python -m tests.chaos.training --seed S --kills N`.

Two ranks with loader processes train a tiny recipe and save every few steps, while their driver, the ranks and the
loader workers are killed as one seed says, some in the middle of a save; the same command goes on each time. Run after
run is done like this, by a launcher such as torchrun and on Ray Train in turns, and each must end as the undisturbed
one: the weights and the losses of all steps equal to the bit, nothing left behind.

The exit code is 0 if all of that holds, else 1; then the folder is kept, and named.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.ledger import Ledger
from tests.chaos.processes import end_run, family, is_running, title
from tests.chaos.schedule import events, gap
from tests.chaos.training_run import GAP, WEIGHTS, Hung, TrainingRun, train_undisturbed, training_files

LEAVE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What was asked for.

    Args:
        seed: of everything that is drawn.
        kills: no new trouble after so many.
        minutes: nor after so long; 0: any time.
        steps: of each run.
        runs: launchers, in turns: `plain`, `ray`.
        gap: the least and the most steps that are made between two events.
    """

    seed: int = 0
    kills: int = 100
    minutes: float = 0.0
    steps: int = 300
    runs: tuple[str, ...] = ("plain", "plain", "plain", "ray")
    gap: tuple[int, int] = GAP


def run(wish: Wish, folder: Path) -> tuple[bool, int, list[str]]:
    """Run it in a folder; whether all went well, the kills, and the lines that say so."""
    mark = folder.name
    ledger, drawn = Ledger("steps", folder / "events.log"), events(wish.seed, WEIGHTS, wish.gap)
    faults: list[str] = []
    number = done = 0
    with contextlib.ExitStack() as stack:
        stack.callback(end_run, mark)
        files = training_files(folder, mark, wish.steps)
        say(f"{wish.steps} steps, two ranks; undisturbed run")
        train_undisturbed(files)
        ledger.begun = time.monotonic()
        deadline = ledger.begun + wish.minutes * 60 if wish.minutes else float("inf")

        def enough() -> bool:
            return time.monotonic() > deadline or ledger.kills >= wish.kills

        while (not number or not enough()) and not faults:
            kind = wish.runs[number % len(wish.runs)]
            try:
                faults = TrainingRun(files, number, kind, ledger, drawn, enough).run()
            except Hung as hung:
                faults = [f"run {number} ({kind}): {hung}"]
            said = "; ".join(faults) if faults else "equal to the undisturbed run, to the bit"
            say(f"run {number} ({kind}): {said}; {ledger.kills} kills so far")
            number, done = number + 1, done + wish.steps
        faults += left_over(mark)
    lines = [*ledger.table(done), f"{number} runs of {wish.steps} steps, seed {wish.seed}"]
    return not faults, ledger.kills, [*faults, *lines]


def left_over(mark: str) -> list[str]:
    """Processes that nobody is left to own, after a while in which they may notice."""
    deadline = time.monotonic() + LEAVE_S
    while left := [each for each in family(mark) if is_running(each)]:
        if time.monotonic() > deadline:
            return [f"process {each.pid} is left behind: {title(each)[:200]}" for each in left]
        time.sleep(0.2)
    return []


def say(line: str) -> None:
    """A line for people, at once."""
    print(line, flush=True)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wish = Wish()
    parser.add_argument("--seed", type=int, default=wish.seed)
    parser.add_argument("--kills", type=int, default=wish.kills)
    parser.add_argument("--minutes", type=float, default=wish.minutes, help="0: any time")
    parser.add_argument("--steps", type=int, default=wish.steps, help="of each run")
    parser.add_argument("--runs", default=",".join(wish.runs), help="launchers, in turns: plain, ray")
    parser.add_argument("--gap", type=gap, default=wish.gap, metavar="LEAST,MOST", help="steps between two events")
    given = parser.parse_args()
    wish = Wish(
        seed=given.seed,
        kills=given.kills,
        minutes=given.minutes,
        steps=given.steps,
        runs=tuple(given.runs.split(",")),
        gap=given.gap,
    )
    say(f"seed {wish.seed}")
    folder = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))  # short: Ray puts sockets below it
    fine = False
    try:
        fine, _, lines = run(wish, folder)
        for line in lines:
            say(line)
    finally:
        if fine:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"kept: {folder}; again: --seed {wish.seed}")
    say("pass" if fine else "FAIL")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
