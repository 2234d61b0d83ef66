"""Mine chains, pseudo-masklets of unlabelled video, over mined shards: `python jobs/mine_chains.py --data ROOT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.jobs.make_sidecar import add_run_options, make, settings_of
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.console.output import clean, say
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.schemas.config import Settings

PRODUCER = "video-chains"
DEFAULT_NAME = "chains"
OPTIONS: tuple[tuple[str, type, str, str], ...] = (
    (
        "boxes",
        str,
        "WHOSE",
        "detections: what --detector finds, in the frames in between too; proposals: those that mining stored; or the "
        "name of a sidecar (default detections)",
    ),
    (
        "detector",
        str,
        "NAME",
        "ssdlite-person, detic, torchvision:NAME, hf:MODEL, file:URL, my_package.my_module:Class (default "
        "ssdlite-person)",
    ),
    ("weights", str, "URL", "checkpoint of the detector"),
    ("classes", str, "NAMES", "what to look for: person,dog, a file of names or vectors, lvis (default: all it knows)"),
    ("min-score", float, "X", "boxes below it are left out (default 0.3)"),
    ("min-iou", float, "X", "least IoU of a link (default 0.5)"),
    ("margin", float, "X", "by how much a match must be better than the second best (default 0.2)"),
    ("min-length", int, "N", "chains in fewer stored frames are left out (default 2)"),
    ("cuts", str, "HOW", "auto, transnet (extra shots), histogram or none: no chain leads over a cut (default auto)"),
    (
        "native",
        str,
        "HOW",
        "frames between the stored ones: auto reads them where the source is at hand, required quarantines a sample "
        "where it is not, never (default auto)",
    ),
)
"""Settings of the producer as options: written down here, since its own module is slow to import."""


def add_options(p: JobParser) -> None:
    """Those that are not given are left to `--config` and the defaults."""
    add = p.option
    add("--data", required=True, metavar="ROOT", help="root of a data set that mining wrote; the shards stay as is")
    add("--name", default=DEFAULT_NAME, metavar="NAME", help="of the sidecar, for a second one (default chains)")
    for name, kind, metavar, words in OPTIONS:
        add(f"--{name}", metavar=metavar, type=kind, help=words)
        p.keys[name.replace("-", "_")] = name.replace("-", "_")
    add("--purity", action="store_true", help="say which share of the links keep one annotated object, of old ones too")
    add("--truth", metavar="URL", help="measure that against gt.txt files of MOTChallenge, each called like its video")
    add("--output", metavar="FILE", help="write the purity as JSON")
    add_run_options(p)


def settings(options: Options) -> Settings:
    """Of the producer, and of the run.

    Raises:
        InputError: an unknown key or value.
    """
    from trackmill.pipeline.sidecars.producers.video_chains import VideoChainProducer

    return settings_of(VideoChainProducer, options)


def run(options: Options) -> ExitCode:
    """Make what is missing, sum up, and measure: `trackmill sidecar ROOT video-chains` with options of its own."""
    settings(options)
    if options.plan_only and (options.purity or options.truth or options.output):
        raise InputError("--plan-only makes nothing to measure: leave out --purity, --truth and --output")
    if options.truth:  # before a cluster works for hours
        from trackmill.pipeline.sidecars.chains.report import TruthFiles

        TruthFiles(options.truth)

    def finish() -> None:
        if options.purity or options.truth or options.output:
            measure(options.data, options.name, options.truth or "", options.output or "")

    return make(options, options.data, options.name, PRODUCER, finish)


def measure(data: str, name: str, truth: str, out: str) -> None:
    """Print how pure the chains of a sidecar are, and write it where `out` says.

    Raises:
        InputError: nothing is known of any clip.
        OSError: something cannot be read or written.
    """
    from trackmill.pipeline.sidecars.chains.purity import purity_lines
    from trackmill.pipeline.sidecars.chains.report import purity_report
    from trackmill.pipeline.storage.publish import publish_bytes

    purity: dict[str, Any] = purity_report(data, name, truth)
    against = f"against {clean(redact(truth))}" if truth else "against the annotated objects"
    say(f"purity of sidecar {name} {against}:")
    for line in purity_lines(purity):
        say(f"  {line}")
    if out:
        publish_bytes(out, (json.dumps(purity, indent=2) + "\n").encode())
        say(f"written: {clean(redact(out))}")


JOB = Job(
    name="mine-chains",
    description="Mine chains over shards that exist: boxes that follow each other at the native rate of their video.",
    add_options=add_options,
    run=run,
    resolve=settings,
    example="bridge=1",
    goes_on="nothing is lost: the same command goes on from here",
    extra="masa",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
