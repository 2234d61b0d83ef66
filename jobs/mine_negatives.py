"""Mine pseudo-negatives over shards that exist: `python jobs/mine_negatives.py --data ROOT --weights URL`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.jobs.make_sidecar import add_run_options, make, settings_of
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options

if TYPE_CHECKING:
    from trackmill.schemas.config import Settings

PRODUCER = "negatives"
OPTIONS = (
    (
        "detector",
        "NAME",
        "who finds them: detic, hf:MODEL, torchvision:NAME, file:URL, my_package.my_module:Class, or proposals: the "
        "regions that mining stored (default detic)",
    ),
    ("weights", "URL", "checkpoint of the detector"),
    ("classes", "NAMES", "what to look for: person,dog, a file of names or vectors, lvis (default: all it knows)"),
    ("text-weights", "URL", "of CLIP, which turns names into vectors, for detic"),
    ("min-score", "X", "detections below it are left out (default 0.3)"),
    ("max-iou", "X", "detections that overlap an annotated object so much or more are left out (default 0.5)"),
)
"""Settings of the producer as options: written down here, since its own module is slow to import."""


def add_options(p: JobParser) -> None:
    """Those that are not given are left to `--config` and the defaults."""
    add = p.option
    add("--data", required=True, metavar="ROOT", help="root of a data set that mining wrote; the shards stay as is")
    add("--name", default=PRODUCER, metavar="NAME", help="of the sidecar, for a second one (default negatives)")
    for name, metavar, words in OPTIONS:
        add(f"--{name}", metavar=metavar, type=float if metavar == "X" else str, help=words)
        p.keys[name.replace("-", "_")] = name.replace("-", "_")
    add_run_options(p)


def settings(options: Options) -> Settings:
    """Of the producer, and of the run.

    Raises:
        InputError: an unknown key or value.
    """
    from trackmill.pipeline.sidecars.producers.negatives import NegativeProducer

    return settings_of(NegativeProducer, options)


def run(options: Options) -> ExitCode:
    """Make what is missing, and sum up: `trackmill sidecar ROOT negatives` with options of its own."""
    settings(options)
    return make(options, options.data, options.name, PRODUCER)


JOB = Job(
    name="negatives",
    description="Mine pseudo-negatives over shards that exist: detections that are no annotated object.",
    add_options=add_options,
    run=run,
    resolve=settings,
    example="batch_size=16",
    goes_on="nothing is lost: the same command goes on from here",
    extra="masa",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
