"""Mining under real chaos: `python -m tests.chaos.mining --seed S --minutes M --kills N --items I`.

A Ray cluster of a head and two raylets, a driver that is started again whenever it ends, engine-free parts beside it;
and all of them are killed, stopped, starved of disk and store, and lied to about the time, as one seed says. Data set
after data set is mined like this, and each is compared with what an undisturbed process makes of the same items:
nothing lost, nothing double, every byte equal, nothing left behind.

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

from tests.chaos.mining_round import Round, Setting, Trouble
from tests.chaos.processes import end_run, family, is_running, title
from tests.chaos.schedule import gap
from tests.chaos.setting import GAP, mining_setting
from tests.chaos.undisturbed import mine_undisturbed

LEAVE_S = 60.0
"""What processes of Ray and of miners may take to notice that those above them are gone."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What was asked for.

    Args:
        seed: of everything that is drawn.
        minutes, kills: no new trouble after so many, whichever comes first; 0: any number.
        items: of each data set.
        parts: engine-free processes beside the driver.
        rounds: kinds of data sets, in turns: `disk`, `store`.
        gap: the least and the most units that are done between two events.
    """

    seed: int = 0
    minutes: float = 10.0
    kills: int = 0
    items: int = 4000
    parts: int = 2
    rounds: tuple[str, ...] = ("disk", "store")
    gap: tuple[int, int] = GAP


def run(wish: Wish, folder: Path) -> tuple[bool, int, list[str]]:
    """Run it in a folder; whether all went well, the kills, and the lines that say so."""
    mark = f"{folder.name}"
    with contextlib.ExitStack() as stack:
        stack.callback(end_run, mark)
        setting: Setting = stack.enter_context(
            mining_setting(folder, mark, wish.seed, wish.items, wish.parts, wish.gap)
        )
        say(f"{wish.items:,} items, {len(setting.bad)} of them bad; undisturbed run, in one process")
        mine_undisturbed(setting)
        say("cluster: a head and two raylets" + "".join(f"; {line}" for line in setting.notices))
        setting.cluster.begin()
        deadline = time.monotonic() + wish.minutes * 60 if wish.minutes else float("inf")

        def enough() -> bool:
            return time.monotonic() > deadline or bool(wish.kills and setting.ledger.kills >= wish.kills)

        faults: list[str] = []
        number = 0
        setting.ledger.begun = time.monotonic()
        while (not number or not enough()) and not faults:
            kind = wish.rounds[number % len(wish.rounds)]
            try:
                faults = Round(setting, number, kind, enough).run()
            except Trouble as trouble:
                faults = [f"round {number} ({kind}): {trouble}"]
            say(
                f"round {number} ({kind}): {'; '.join(faults) if faults else 'equal to the undisturbed run'}; "
                f"{setting.ledger.kills} kills so far"
            )
            number += 1
        setting.cluster.end()
        faults += left_over(mark, setting)
        table = setting.ledger.table(setting.items_done)
        lines = [*table, *setting.facts(), f"{number} data sets of {wish.items:,} items, seed {wish.seed}"]
    return not faults, setting.ledger.kills, [*faults, *lines]


def left_over(mark: str, setting: Setting) -> list[str]:
    """Processes that nobody is left to own, after a while in which they may notice."""
    allowed = {each.pid for each in setting.own_processes()}
    deadline = time.monotonic() + LEAVE_S
    while left := [each for each in family(mark) if each.pid not in allowed and is_running(each)]:
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
    parser.add_argument("--minutes", type=float, default=wish.minutes, help="0: any number")
    parser.add_argument("--kills", type=int, default=wish.kills, help="0: any number")
    parser.add_argument("--items", type=int, default=wish.items, help="of each data set")
    parser.add_argument("--parts", type=int, default=wish.parts, help="engine-free processes beside the driver")
    parser.add_argument("--rounds", default=",".join(wish.rounds), help="kinds of data sets, in turns")
    parser.add_argument("--gap", type=gap, default=wish.gap, metavar="LEAST,MOST", help="units between two events")
    given = parser.parse_args()
    wish = Wish(
        seed=given.seed,
        minutes=given.minutes,
        kills=given.kills,
        items=given.items,
        parts=given.parts,
        rounds=tuple(given.rounds.split(",")),
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
