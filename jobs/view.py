"""Look at a mined data set, or at tracks of a video, in a browser: serves a page on this machine alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.console.output import note, raw_stream
from trackmill.schemas.errors import InputError, MissingPackage
from trackmill.schemas.install import install


def add_options(p: JobParser) -> None:
    """What is shown, and where."""
    add = p.option
    shown = "root of a data set, a .tar, a folder of tars; with --results a video, a folder of pictures, a sequence"
    add("url", help=shown)
    tracks = "tracks of that video, MOTChallenge text; may be given several times, and trackers stand side by side"
    add("--results", action="append", default=[], type=named, metavar="NAME=FILE", help=tracks)
    add("--evaluation", metavar="JSON", help="with --results: what evaluate --output wrote, for its worst moments")
    add("--port", type=port, default=0, metavar="N", help="of this machine's loopback (default: a free one)")


def port(text: str) -> int:
    """The type of `--port`."""
    if not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no port: 0 to 65535")
    return int(text)


def named(text: str) -> tuple[str, str]:
    """The type of `--results`."""
    name, equals, url = text.partition("=")
    if not (name and equals and url):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} should be NAME=FILE, such as masa=out/MOT17-02.txt")
    return name, url


def run(options: Options) -> None:
    """Serve until Ctrl-C."""
    if options.evaluation and not options.results:
        raise InputError("--evaluation shows the moments of tracks: name them with --results NAME=FILE")
    if len(dict(options.results)) < len(options.results):
        raise InputError("--results: two trackers of one name")
    try:
        from trackmill.pipeline.view.app import make_app, make_results_app
        from trackmill.pipeline.view.serve import address_of, listen, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise MissingPackage(f"the viewer needs an extra: {install('view')}") from error
    from trackmill.pipeline.view.data_set import DataSetView
    from trackmill.pipeline.view.guard import new_token
    from trackmill.pipeline.view.results import ResultsView

    with listen(options.port) as listening:
        token = new_token()
        if options.results:
            results = ResultsView(options.url, dict(options.results), options.evaluation or "")
            app = make_results_app(results, token)
        else:
            app = make_app(DataSetView(options.url), token)
        # Past what takes secrets out of what is printed: this one is for whoever started the job.
        print(f"open {address_of(listening, token)}", file=raw_stream(sys.stdout), flush=True)
        note("only this machine can reach it, and only by this address; Ctrl-C ends it")
        serve(app, listening)


JOB = Job(name="view", description=__doc__, add_options=add_options, run=run)
main = JOB.main

if __name__ == "__main__":
    leave(main())
