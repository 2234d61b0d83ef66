"""Make one data set out of several, without decoding: `python jobs/merge_data.py ROOT ROOT --output ROOT`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.jobs.filter_data import add_selection_options, add_write_options, selection_of, tell, write
from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options

DUPLICATES = ("refuse", "first")


def add_options(p: JobParser) -> None:
    """Data sets, and which of their samples are kept."""
    p.option("urls", nargs="+", metavar="url", help="roots of data sets, local or any URL; they stay as they are")
    add_write_options(p)
    twice = "a sample that two inputs have: an error (refuse, the default), or taken from the first of them"
    p.option("--duplicates", type=OneOf(DUPLICATES), default="refuse", metavar="{refuse,first}", help=twice)
    add_selection_options(p)


def run(options: Options) -> ExitCode:
    """One data set out of all."""
    from trackmill.pipeline.datasets.derive import open_sources

    sources = open_sources(options.urls, tell)
    write("merge", options, options.urls, sources, options.output, selection_of(options))
    return ExitCode.FINE


JOB = Job(
    name="merge",
    description="Make one data set out of several: their samples one after the other, without decoding.",
    add_options=add_options,
    run=run,
    goes_on="nothing is lost: the same command goes on from here",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
