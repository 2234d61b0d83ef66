"""Split a data set, without decoding: `python jobs/split_data.py ROOT --output FOLDER --parts train=0.9 val=0.1`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.jobs.filter_data import (
    add_group_options,
    add_selection_options,
    add_write_options,
    selection_of,
    tell,
    write,
)
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.errors import InputError

_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}$")


def add_options(p: JobParser) -> None:
    """A data set, and its parts."""
    p.option("url", help="root of a data set, local or any URL; it stays as it is")
    shares = "name and share of each, such as train=0.9 val=0.1; each becomes a data set OUTPUT/NAME"
    p.option("--parts", nargs="+", required=True, metavar="NAME=X", help=shares)
    add_write_options(p)
    add_group_options(p)
    add_selection_options(p)


def run(options: Options) -> ExitCode:
    """One data set for each part; a group is in one of them only."""
    from trackmill.pipeline.datasets.derive import open_sources
    from trackmill.pipeline.datasets.groups import spans

    wanted = spans(shares_of(options.parts))
    sources = open_sources([options.url], tell)
    for name, span in wanted.items():
        write("split", options, [options.url], sources, join(options.output, name), selection_of(options, span))
    return ExitCode.FINE


def shares_of(words: list[str]) -> dict[str, str]:
    """`train=0.9` and its like, by name.

    Raises:
        InputError: something else, or a name twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, share = word.partition("=")
        if not equals or not _NAME.match(name):
            raise InputError(f"--parts {word[:60]}: should be a name and a share, such as train=0.9")
        if name in found:
            raise InputError(f"--parts: {name} is there twice")
        found[name] = share
    return found


JOB = Job(
    name="split",
    description="Split a data set into parts, such as train and val, without decoding; videos are never torn apart.",
    add_options=add_options,
    run=run,
    goes_on="nothing is lost: the same command goes on from here",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
