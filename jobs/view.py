"""Look at a mined data set in a browser: `trackmill view URL` serves a page on this machine alone."""

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
from trackmill.schemas.errors import MissingPackage


def add_options(p: JobParser) -> None:
    """What is shown, and where."""
    add = p.option
    add("url", help="root of a data set, a .tar, or a folder of tars; a path or any URL such as s3://...")
    add("--port", type=port, default=0, metavar="N", help="of this machine's loopback (default: a free one)")


def port(text: str) -> int:
    """The type of `--port`."""
    if not text.isdecimal() or int(text[:6]) > 65535:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no port: 0 to 65535")
    return int(text)


def run(options: Options) -> None:
    """Serve until Ctrl-C."""
    try:
        from trackmill.pipeline.view.app import make_app
        from trackmill.pipeline.view.serve import address_of, listen, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise MissingPackage('the viewer needs an extra: pip install -e ".[view]"') from error
    from trackmill.pipeline.view.data_set import DataSetView
    from trackmill.pipeline.view.guard import new_token

    with listen(options.port) as listening:
        data, token = DataSetView(options.url), new_token()
        # Past what takes secrets out of what is printed: this one is for whoever started the job.
        print(f"open {address_of(listening, token)}", file=raw_stream(sys.stdout), flush=True)
        note("only this machine can reach it, and only by this address; Ctrl-C ends it")
        serve(make_app(data, token), listening)


JOB = Job(name="view", description=__doc__, add_options=add_options, run=run)
main = JOB.main

if __name__ == "__main__":
    leave(main())
