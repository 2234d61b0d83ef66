"""Say how far a mining output, a sidecar or a training run is, from its files alone: `trackmill status OUTPUT`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import raw_stream, say


def add_options(p: JobParser) -> None:
    """Which output, and how it is told."""
    add = p.option
    add("url", metavar="OUTPUT", help="root of a data set or a training run, or DATA/sidecars/NAME; a path or any URL")
    add("--json", action="store_true", help="print JSON instead of text; with --watch one object a line")
    add("--watch", type=positive, metavar="N", help="look again every N seconds, until it is done")
    stale = "exit with 1 where it is not done and nothing was heard from it for so many seconds; for cron"
    add("--stale-after", type=positive, metavar="S", help=stale)
    add("--all", action="store_true", help="read all receipts for the reasons of quarantined items (default: 200)")


def run(options: Options) -> ExitCode:
    """Look, once or again and again; see `Status.exit_code`."""
    from trackmill.pipeline.status.lines import lines
    from trackmill.pipeline.status.look import look

    while True:
        status = look(options.url, everything=options.all)
        if options.json:
            print(json.dumps(status.as_dict()), flush=True)
        else:
            if options.watch and raw_stream(sys.stdout).isatty():
                raw_stream(sys.stdout).write("\033[H\033[2J")  # the screen shows the newest alone
            for line in lines(status):
                say(line)
        stale = options.stale_after is not None and status.is_stale(options.stale_after)
        if not options.watch or status.state == "done" or stale:
            return status.exit_code(options.stale_after)
        time.sleep(options.watch)


JOB = Job(name="status", description=__doc__, add_options=add_options, run=run)
main = JOB.main

if __name__ == "__main__":
    leave(main())
