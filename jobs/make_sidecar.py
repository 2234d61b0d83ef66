"""Make a sidecar, a table beside mined shards: `python jobs/make_sidecar.py ROOT NAME`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import clean, complain, say, warn
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.sidecars.part_work import PartResult
    from trackmill.pipeline.sidecars.run import SidecarOutcome
    from trackmill.schemas.config import Settings

_SHOWN = 20


def add_options(p: JobParser) -> None:
    """Settings of the producer are given by `--set` and `--config`."""
    add = p.option
    add("root", metavar="ROOT", help="root of a data set that mining wrote; a path or any URL such as s3://...")
    add("name", metavar="NAME", help="of the sidecar, such as chains or detections; the shards stay untouched")
    add("--producer", metavar="NAME", help="who makes it, or my_package.my_module:Class (default: the one called NAME)")
    where = "ray: a pool of actors (default); inline: here"
    add("--executor", type=OneOf(["ray", "inline"]), default="ray", metavar="{ray,inline}", help=where)
    add("--workers", type=positive, metavar="N", help="size of the pool (default: one per GPU or CPU)")
    add("--only-quarantined", action="store_true", help="make the parts with quarantined samples again, nothing else")


def settings(options: Options) -> Settings:
    """Of the producer.

    Raises:
        InputError: an unknown producer, key or value.
    """
    from trackmill.pipeline.sidecars.producers import producer_class
    from trackmill.schemas.config import build

    if not (options.producer or options.name):
        raise InputError("whose settings? name a sidecar, such as chains, or a --producer")
    kind = producer_class(options.producer or options.name)
    return build(kind.Config, options.values, redact(options.config) if options.config else "settings")


def run(options: Options) -> ExitCode:
    """Make what is missing, and sum up."""
    settings(options)  # a typing error is found before the data set is opened

    from trackmill.pipeline.sidecars.run import make_sidecar

    progress = ProgressLine(0, "made rows of")
    shown = 0

    def started(parts: int, samples: int) -> None:
        nonlocal progress
        progress = ProgressLine(samples, "made rows of")
        say(f"{parts} parts of sidecar {options.name} to make, about {samples} samples")

    def made(result: PartResult) -> None:
        nonlocal shown
        progress(result.samples)
        if result.failed:
            complain(f"{result.file_name}: {clean(result.failed)}")
        for key, error_class, reason in result.quarantined[: max(0, _SHOWN - shown)]:
            warn(f"quarantined: {key}: {error_class}: {clean(reason)}")
            shown += 1

    outcome = make_sidecar(
        options.root,
        options.name,
        options.producer or "",
        options.values,
        executor=options.executor,
        workers=options.workers or 0,
        only_quarantined=options.only_quarantined,
        on_start=started,
        on_part=made,
    )
    progress.close()
    return _summarise(outcome, options)


def _summarise(outcome: SidecarOutcome, options: Options) -> ExitCode:
    made = [result for result in outcome.made if not result.failed]
    done = "nothing was left to do" if not outcome.made else f"{len(made)} parts made now"
    size = readable_bytes(sum(result.num_bytes for result in made))
    rows, samples = sum(result.rows for result in made), sum(result.samples for result in made)
    say(f"done: {done} ({rows} rows about {samples} samples, {size}), {outcome.parts} in all")
    say(f"sidecar {outcome.name} of {redact(options.root)} (fingerprint {outcome.fingerprint})")
    quarantined = sum(result.num_quarantined for result in outcome.made)
    if quarantined:
        say(f"{quarantined} samples are quarantined in it; run again with --only-quarantined to retry them")
    if outcome.failed:
        complain(f"{len(outcome.failed)} parts could not be made; mend what is named above and run again")
        return ExitCode.FAILED
    if quarantined and quarantined == samples:
        say("nothing was made: every sample is quarantined")
        return ExitCode.INCOMPLETE
    return ExitCode.FINE


JOB = Job(
    name="sidecar",
    description="Make a sidecar: a table beside mined shards that says more about their samples.",
    add_options=add_options,
    run=run,
    resolve=settings,
    example="min_iou=0.6",
    goes_on="nothing is lost: the same command goes on from here",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
