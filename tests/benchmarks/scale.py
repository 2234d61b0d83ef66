"""How planning, resuming and summing up grow with a data set: `python -m tests.benchmarks.scale [--most 11000000]`.

Listings are made up, as an object store would give them: no file is there. Each row is a process of its own, so that
its peak memory is its own: one lists, plans and stores the plan; one comes again with the same listing; one with a
picture in a hundred more. Sizes are 100,000 and ten times as many up to `--most`, so that one sees what memory grows
by; from the last two sizes it is extrapolated to a billion items. Scratch files take some 2 GB for 11 million items,
where `TMPDIR` says.

`scale_receipts` and `scale_requests` of this folder add their rows (`rows(sizes)` gives lines), where they are there.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from trackmill.pipeline.storage.listed_chunks import Lot

SIZES = (100_000, 1_000_000, 11_000_000)
KINDS = ("images", "sa1b")
STEPS = ("plan", "resume", "resume +1%")
_BILLION = 1_000_000_000
_FOLDER = 20_000
_NEW = 100
"""One item in so many is new in the last step."""


def made_up_lots(kind: str, count: int, more: bool) -> Iterator[Lot]:
    """Pictures, or pairs of a picture and a JSON, in folders of some ten thousand.

    Args:
        kind: `images` or `sa1b`.
        count: of pictures.
        more: whether there are new ones in each folder.
    """
    for first in range(0, count, _FOLDER):
        numbers = list(range(first, min(first + _FOLDER, count)))
        if more:
            numbers += [_BILLION + number for number in numbers[::_NEW]]
        folder = f"s3://made-up/{kind}/{first // _FOLDER:06d}"
        uris = [f"{folder}/sa_{number:010d}.jpg" for number in numbers]
        if kind == "sa1b":
            uris = [uri for picture in uris for uri in (picture, f"{picture[:-3]}json")]
        yield Lot(uris, [100_000 + place for place in range(len(uris))])


def plan_once(kind: str, count: int, more: bool, output: str) -> dict[str, float]:
    """List, plan and store in this process; seconds, items planned now, and peak memory in MB."""
    from trackmill.pipeline.mining.plan import read_plan
    from trackmill.pipeline.mining.prepare import prepare_mining
    from trackmill.pipeline.mining.settings import mine_config
    from trackmill.pipeline.shards.layout import Layout
    from trackmill.pipeline.sources import claiming

    config = mine_config({"source": kind, "proposer": "graph"}, "the benchmark")
    with tempfile.TemporaryDirectory() as small:  # imports what there is to import
        claiming.list_lots = lambda url: made_up_lots(kind, 10, False)
        prepare_mining(config, [f"s3://made-up/{kind}"], small)
    claiming.list_lots = lambda url: made_up_lots(kind, count, more)
    before = read_plan(Layout(output))
    begin, cpu, start_mb = time.perf_counter(), time.process_time(), _peak_mb()
    run = prepare_mining(config, [f"s3://made-up/{kind}"], output)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_s": time.process_time() - cpu,
        "items": run.plan.num_items,
        "new": run.plan.num_items - (before.num_items if before else 0),
        "start_mb": start_mb,
        "peak_mb": _peak_mb(),
    }


def in_a_process(kind: str, count: int, more: bool, output: str) -> dict[str, float]:
    """The same in a fresh process."""
    words = [sys.executable, "-m", "tests.benchmarks.scale", "--one", kind, str(count), str(int(more)), output]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(sizes: list[int]) -> list[str]:
    """The lines of the table, with the growth of memory and what it would be for a billion items."""
    lines = [f"{'source':8}{'step':12}{'items':>12}{'new':>12}{'s':>8}{'items/s':>10}{'CPU us':>8}{'peak MB':>9}"]
    for kind in KINDS:
        peaks: dict[str, list[tuple[int, float]]] = {step: [] for step in STEPS}
        for size in sizes:
            with tempfile.TemporaryDirectory() as output:
                for step in STEPS:
                    done = in_a_process(kind, size, step == STEPS[2], output)
                    peaks[step].append((size, done["peak_mb"]))
                    lines.append(
                        f"{kind:8}{step:12}{done['items']:12,.0f}{done['new']:12,.0f}{done['seconds']:8.1f}"
                        f"{done['items'] / done['seconds']:10,.0f}{done['cpu_s'] / done['items'] * 1e6:8.2f}"
                        f"{done['peak_mb']:9.0f}"
                    )
                    print(lines[-1], file=sys.stderr)
        lines += [f"{kind:8}{step:12}{_growth(measured)}" for step, measured in peaks.items() if len(measured) > 1]
    return lines


def _growth(measured: list[tuple[int, float]]) -> str:
    (few, less), (many, more) = measured[-2:]
    each = max(0.0, more - less) * 1e6 / (many - few)
    billion = more / 1e3 + each * (_BILLION - many) / 1e9
    return f"memory grows by {each:.1f} bytes an item ({few:,} to {many:,}): {billion:.1f} GB for a billion"


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="largest number of items (default %(default)s)")
    parser.add_argument("--one", nargs=4, metavar=("KIND", "COUNT", "MORE", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, count, more, output = options.one
        print(json.dumps(plan_once(kind, int(count), more == "1", output)))
        return
    sizes = sorted({size for size in SIZES if size < options.most} | {options.most})
    print("\n".join(rows(sizes)))
    for name in ("scale_receipts", "scale_requests"):
        if importlib.util.find_spec(f"tests.benchmarks.{name}"):
            print("\n".join(["", *importlib.import_module(f"tests.benchmarks.{name}").rows(sizes)]))


if __name__ == "__main__":
    main()
