"""Push a data set onto Hugging Face's Hub: `python jobs/push_data.py ROOT hf://datasets/ORG/NAME`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.console.output import clean, note, say


def add_options(p: JobParser) -> None:
    """What, and where to."""
    p.option("url", help="root of a data set on this machine, whole")
    p.option("target", help="hf://datasets/ORG/NAME, with @BRANCH behind it for another branch than main")
    p.option("--public", action="store_true", help="everybody may see it, if it is made now (default: private)")
    p.option("--message", metavar="TEXT", help="of the commit")


def run(options: Options) -> ExitCode:
    """Push, and say where it is."""
    from trackmill.pipeline.datasets.push import hub_place, push
    from trackmill.pipeline.shards.reader import open_dataset

    place = hub_place(options.target)
    dataset = open_dataset(options.url)
    first = next(iter(dataset.stored), None)
    if first is not None:
        note(clean(f"samples and receipts name what they were made from, such as {first.uri}"))
    where = push(dataset, place, public=options.public, message=options.message or "")
    say(f"pushed to {where}")
    say(f"read it as hf://datasets/{place.repo}" + (f"@{place.revision}" if place.revision else ""))
    return ExitCode.FINE


JOB = Job(
    name="push",
    description="Push a data set onto Hugging Face's Hub.",
    add_options=add_options,
    run=run,
    goes_on="the same command goes on from here",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
