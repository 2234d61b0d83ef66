"""Draw the curves of training runs: one run as a page, or several over each other as a PNG picture."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.console.output import say
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.scratch import check_writable
from trackmill.pipeline.storage.urls import basename, canonical
from trackmill.schemas.errors import InputError


def add_options(p: JobParser) -> None:
    """Which runs, and where the drawing goes."""
    p.option("runs", nargs="+", metavar="RUN", help="what jobs/train.py wrote, paths or URLs; NAME=RUN says its name")
    form = "a path or URL that ends in .png, or in .html for one run"
    p.option("--output", required=True, metavar="FILE", help=form)


def run(options: Options) -> None:
    """Draw, and say where."""
    target = canonical(options.output)
    runs: dict[str, str] = {}
    for text in options.runs:
        name, mark, url = text.partition("=")
        if not mark or "/" in name:  # a URL may hold the sign, too
            name, url = basename(canonical(text)), text
        if name in runs:
            raise InputError(
                f"{redact(text)}: a run is called {name!r} already; give it a name, as in second={redact(url)}"
            )
        runs[name] = url
    page = target.lower().endswith(".html")
    if not page and not target.lower().endswith(".png"):
        raise InputError(f"--output {redact(target)}: curves are drawn as .png or .html; give a name that ends so")
    if page and len(runs) > 1:
        raise InputError("--output: a page shows one run; several are drawn over each other as .png")
    check_writable(target)
    from trackmill.pipeline.training.telemetry.curves import write_curves, write_picture

    if page:
        write_curves(next(iter(runs.values())), target)
    else:
        write_picture(runs, target)
    say(f"curves: {redact(target)}")


JOB = Job(name="curves", description=__doc__, add_options=add_options, run=run)
main = JOB.main

if __name__ == "__main__":
    leave(main())
