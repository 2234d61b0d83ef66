"""`python -m tests.fuzz`: as long as one likes, and every finding can be tried again."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fuzz.campaign import Campaign, grouped, repeat, table
from tests.fuzz.outcomes import FAILURES
from tests.fuzz.targets import TARGETS


def main() -> int:
    """The command line; 1 where something was found."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="one of them; may be repeated")
    parser.add_argument("--seconds", type=float, default=120.0, help="for all targets together")
    parser.add_argument("--iterations", type=int, help="so many inputs for each target, however long they take")
    parser.add_argument("--seed", type=int, default=0, help="of all choices")
    parser.add_argument("--only", type=int, metavar="ITERATION", help="try this one input of the target")
    parser.add_argument("--repeat", type=Path, metavar="FOLDER", help="try an input that was stored")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="where inputs that fail are stored")
    parser.add_argument("--list", action="store_true", help="the names of all targets")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    if options.list:
        print("\n".join(names))
        return 0
    if options.repeat is not None:
        name = names[0] if options.target else options.repeat.name.rsplit("-", 2)[0]
        outcome = repeat(TARGETS[name], options.repeat)
        print(f"{outcome.kind.value}: {outcome.text}\n{outcome.place}\n{outcome.cpu_s:.1f} CPU s, {outcome.peak_mb} MB")
        return int(outcome.kind in FAILURES)
    tallies = []
    until = time.monotonic() + options.seconds
    for place, name in enumerate(names):
        campaign = Campaign(TARGETS[name], options.seed, options.keep)
        try:
            if options.only is not None:
                outcome = campaign.try_iteration(options.only)
                print(f"{outcome.kind.value}: {outcome.text}\n{outcome.place}")
            elif options.iterations is not None:
                campaign.run(iterations=options.iterations)
            else:
                campaign.run(seconds=(until - time.monotonic()) / (len(names) - place))
        except KeyboardInterrupt:
            break
        finally:
            campaign.close()
            tallies.append(campaign.tally)
        for finding, count in grouped(campaign.tally.findings):
            print(f"{finding}\n    ({count} of this kind)\n", flush=True)
        print(table([campaign.tally]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(tallies))
    return int(any(tally.findings for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
