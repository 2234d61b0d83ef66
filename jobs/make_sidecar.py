"""Make a sidecar, a table beside mined shards: `python jobs/make_sidecar.py ROOT NAME`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.console.output import clean, complain, say, warn
from trackmill.pipeline.console.quarantine import quarantine_limit
from trackmill.pipeline.console.signals import stop_on_sigterm
from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.sidecars.settings import RunSection, with_run
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.sidecars.part_work import PartResult
    from trackmill.pipeline.sidecars.producer import Producer
    from trackmill.pipeline.sidecars.run import Executor, Making, SidecarOutcome
    from trackmill.pipeline.workers.task import Tick
    from trackmill.schemas.config import Settings

_SHOWN = 20


def add_options(p: JobParser) -> None:
    """Settings of the producer are given by `--set` and `--config`, those of the run as `run.KEY` beside them."""
    add = p.option
    add("root", metavar="ROOT", help="root of a data set that mining wrote; a path or any URL such as s3://...")
    add("name", metavar="NAME", help="of the sidecar, such as negatives, detections or chains; the shards stay as is")
    add("--producer", metavar="NAME", help="who makes it, or my_package.my_module:Class (default: the one called NAME)")
    add_run_options(p)


def add_run_options(p: JobParser) -> None:
    """How a sidecar is made, whichever it is."""
    add = p.option
    add("--executor", key="run.executor", settings=RunSection)
    add("--workers", key="run.actors", settings=RunSection)
    add("--plan-only", action="store_true", help="time a few samples, print what the rest would take, write nothing")
    add("--usd-per-gpu-hour", type=float, metavar="USD", help="adds a price to --plan-only")
    add("--only-quarantined", action="store_true", help="make the parts with quarantined samples again, nothing else")
    add(
        "--max-quarantined",
        key="run.max_quarantined",
        settings=RunSection,
        metavar="N|P%",
        help="exit with 3 above this: 5, or 1%% (default: only if no sample is left)",
    )


def settings(options: Options) -> Settings:
    """Of the producer, and of the run.

    Raises:
        InputError: an unknown producer, key or value.
    """
    from trackmill.pipeline.sidecars.producers import producer_class

    if not (options.producer or options.name):
        raise InputError("whose settings? name a sidecar, such as chains, or a --producer")
    return settings_of(producer_class(options.producer or options.name), options)


def settings_of(kind: type[Producer], options: Options) -> Settings:
    """Of a producer, and of the run; raises what `settings` raises."""
    from trackmill.schemas.config import build

    return build(with_run(kind.Config), options.values, redact(options.config) if options.config else "settings")


def run(options: Options) -> ExitCode:
    """Make what is missing, and sum up."""
    settings(options)  # a typing error is found before the data set is opened
    return make(options, options.root, options.name, options.producer or "")


def make(options: Options, root: str, name: str, producer: str) -> ExitCode:
    """Make what is missing of a sidecar, and sum up; `options` are those of `add_run_options` and their values."""
    from trackmill.pipeline.sidecars.progress import SidecarProgress
    from trackmill.pipeline.sidecars.requests import request_sidecar
    from trackmill.pipeline.sidecars.run import forecast_sidecar, make_parts, prepare_sidecar
    from trackmill.pipeline.sidecars.settings import SidecarRunSettings
    from trackmill.schemas.config import build

    how = build(SidecarRunSettings, dict(options.values.get("run", {})), "run")
    quarantine_limit(how.max_quarantined, 0)  # a typing error is found now, not after a night
    if options.only_quarantined and options.plan_only:
        raise InputError("--only-quarantined does not go with --plan-only: it makes again what is quarantined")
    values = {key: value for key, value in options.values.items() if key != "run"}
    making = prepare_sidecar(
        root,
        request_sidecar(name, producer, values),
        how,
        only_quarantined=options.only_quarantined,
        store=not options.plan_only,
    )
    samples = sum(len(unit.items) for unit in making.todo)
    say(f"{len(making.todo)} parts of sidecar {name} to make, about {samples} samples")
    if options.plan_only:
        for line in forecast_sidecar(making, options.usd_per_gpu_hour).lines() if making.todo else ():
            say(line)
        return ExitCode.FINE
    progress, shown = SidecarProgress(making), 0

    def made(result: PartResult) -> None:
        nonlocal shown
        progress.part_done(result)
        if result.failed:
            complain(f"{result.file_name}: {clean(result.failed)}")
        for key, error_class, reason in result.quarantined[: max(0, _SHOWN - shown)]:
            warn(f"quarantined: {key}: {error_class}: {clean(reason)}")
            shown += 1

    try:
        outcome = make_parts(making, made, progress.tick, _start)
    finally:
        progress.close()
    code = _summarise(outcome, making, root)
    if making.work.job.producer == "negatives" and outcome.made and not outcome.failed:
        which = "" if outcome.name == "negatives" else f" --sidecar {outcome.name}"  # the audit's default
        say(f"look at them: trackmill audit {redact(root)}{which} --html sheet.html")
    return code


def _start(making: Making, tick: Tick) -> tuple[Executor, int, float]:
    from trackmill.pipeline.sidecars.run import make_executor

    started = make_executor(making, tick)
    if making.settings.executor == "ray":
        stop_on_sigterm()  # starting Ray puts its own handler there
    return started


def say_counts(counts: Mapping[str, int], whose: str = "counted") -> None:
    """Say what a producer counted; what it left out is no silence."""
    from trackmill.pipeline.sidecars.chains.purity import is_purity, purity_lines, purity_of

    shown = {name: count for name, count in sorted(counts.items()) if (count or name == "kept") and not is_purity(name)}
    if shown:
        first = sorted(shown, key=lambda name: name != "kept")
        say(f"{whose}: " + ", ".join(f"{shown[name]} {name}" for name in first))
    purity = purity_of(counts)
    for line in purity_lines(purity) if purity else ():
        say(f"  {line}")


def _summarise(outcome: SidecarOutcome, making: Making, root: str) -> ExitCode:
    made = [result for result in outcome.made if not result.failed]
    done = "nothing was left to do" if not outcome.made else f"{len(made)} parts made now"
    size = readable_bytes(sum(result.num_bytes for result in made))
    rows, samples = sum(result.rows for result in made), sum(result.samples for result in made)
    say(f"done: {done} ({rows} rows about {samples} samples, {size}), {outcome.parts} in all")
    counts = outcome.counts
    say_counts(counts)
    now = sum(result.num_quarantined for result in outcome.made)
    if not now and counts.get("frames") and counts.get("frames not annotated") == counts["frames"]:
        warn("not one frame here is annotated: without annotated objects nothing is known not to be one of them")
    say(f"sidecar {outcome.name} of {redact(root)} (fingerprint {outcome.fingerprint})")
    quarantined = now + outcome.quarantined_before
    if quarantined:
        say(f"{quarantined} samples are quarantined in it; run again with --only-quarantined to retry them")
    if outcome.failed:
        complain(f"{len(outcome.failed)} parts could not be made; mend what is named above and run again")
        return ExitCode.FAILED
    if now and now == samples:
        say("nothing was made: every sample is quarantined")
        return ExitCode.INCOMPLETE
    allowed = making.settings.max_quarantined
    if quarantined > quarantine_limit(allowed, making.samples):
        say(f"{quarantined} quarantined samples are more than --max-quarantined {allowed} allows")
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
