"""What limits cost: pictures mined with `run.isolate`, that is read in a child process, against the same without.

`python -m tests.benchmarks.limits`, when nothing else runs. Both kinds take turns, a unit each, in one run of one
process, so that what else the machine does falls on both. The proposer is a dummy that computes for 20 ms.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from tests.benchmarks.dummy_proposer import PROPOSAL_S
from tests.benchmarks.mining import install_dummy, tasks
from tests.make_media import make_pictures
from trackmill.pipeline.mining.inline import InlineExecutor
from trackmill.pipeline.mining.prepare import prepare_mining
from trackmill.pipeline.mining.settings import mine_config

UNIT = 50
DIFFERENT = 100
"""Pictures that are drawn; the others are copies of them."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000, help="pictures for each kind")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    options = parser.parse_args()
    install_dummy()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder / "in", count=DIFFERENT, height=options.height, width=options.width)
        drawn = sorted((folder / "in").iterdir())
        for number in range(DIFFERENT, options.items):
            shutil.copyfile(drawn[number % DIFFERENT], folder / "in" / f"more-{number:06d}.jpg")
        seconds, items = {True: 0.0, False: 0.0}, {True: 0, False: 0}
        work = {isolate: prepared(folder, isolate) for isolate in seconds}
        for round_ in zip(*work.values(), strict=True):
            for isolate, (spent, count) in zip(work, round_, strict=True):
                seconds[isolate] += spent
                items[isolate] += count
    with_, without = (seconds[isolate] / items[isolate] for isolate in (True, False))
    print(f"{items[True]} pictures of {options.height} x {options.width}, a proposer of {PROPOSAL_S * 1000:.0f} ms")
    print(f"  with limits {with_ * 1000:.2f} ms an item, without {without * 1000:.2f} ms: {with_ / without:.3f} times")


def prepared(folder: Path, isolate: bool):
    """Seconds and items of each unit but the first, which pays for starting."""
    values = {
        "source": "images",
        "graph": {"backend": "skimage"},
        "shards": {"unit_frames": UNIT},
        "run": {"executor": "inline", "isolate": isolate},
    }
    run = prepare_mining(mine_config(values, "benchmark"), [str(folder / "in")], str(folder / f"out-{isolate}"))
    results = InlineExecutor(run.job(), lambda states: None).run(iter(tasks(run.plan)))
    next(results)
    while True:
        begin = time.perf_counter()
        result = next(results, None)
        if result is None:
            return
        assert result.statuses["ok"] == result.items
        yield time.perf_counter() - begin, result.items


if __name__ == "__main__":
    main()
