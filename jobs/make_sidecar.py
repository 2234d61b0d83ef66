"""Make a sidecar, a table beside mined shards: `python jobs/make_sidecar.py ROOT NAME`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
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
from trackmill.pipeline.console.words import counted, readable_bytes
from trackmill.pipeline.sidecars.settings import RunSection, with_run
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.workers.part_options import add_part_options, part_of
from trackmill.pipeline.workers.prices import add_price_options, prices_of
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.sidecars.part_work import PartResult
    from trackmill.pipeline.sidecars.prepare import Making
    from trackmill.pipeline.sidecars.producer import Producer
    from trackmill.pipeline.sidecars.run import Executor, SidecarOutcome
    from trackmill.pipeline.sidecars.sharing import SharedMaking
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
    add_part_options(p)
    add("--plan-only", action="store_true", help="time a few samples, print what the rest would take, write nothing")
    add_price_options(p)
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


def make(options: Options, root: str, name: str, producer: str, finish: Callable[[], None] = lambda: None) -> ExitCode:
    """Make what is missing of a sidecar, and sum up; others may do the same at the same moment.

    Args:
        options: those of `add_run_options` and their values.
        root, name, producer: see `trackmill.pipeline.sidecars.run.make_sidecar`.
        finish: called where the sidecar is whole; of many processes that make it, by the one that sums up.
    """
    from trackmill.pipeline.sidecars.joining import join_sidecar
    from trackmill.pipeline.sidecars.prepare import prepare_sidecar
    from trackmill.pipeline.sidecars.requests import request_sidecar
    from trackmill.pipeline.sidecars.run import forecast_sidecar, sidecar_claims
    from trackmill.pipeline.sidecars.settings import SidecarRunSettings
    from trackmill.pipeline.sidecars.sharing import SharedMaking
    from trackmill.schemas.config import build

    how = build(SidecarRunSettings, dict(options.values.get("run", {})), "run")
    quarantine_limit(how.max_quarantined, 0)  # a typing error is found now, not after a night
    if options.only_quarantined and options.plan_only:
        raise InputError("--only-quarantined does not go with --plan-only: it makes again what is quarantined")
    part = part_of(options)
    if part is not None:
        how = how.model_copy(update={"executor": "inline"})
    request = request_sidecar(name, producer, {key: value for key, value in options.values.items() if key != "run"})
    if options.plan_only:
        making = prepare_sidecar(root, request, how, store=False)
        _say_todo(making)
        for line in forecast_sidecar(making, prices_of(options)).lines() if making.todo else ():
            say(line)
        return ExitCode.FINE
    with contextlib.closing(sidecar_claims(root, name, how, part)) as claims:
        making = join_sidecar(claims, root, request, how, only_quarantined=options.only_quarantined)
        _say_todo(making)
        count, others = claims.others() if making.todo else (0, [])
        if count:
            known = clean("; ".join(others))
            who = counted(count, "other process is", "other processes are")
            say(f"{who} making this sidecar, or died there a moment ago: {known}")
        shared = SharedMaking(making, claims, part, not options.own_share_only, options.wait)
        outcome = _make(making, shared)
    if not (outcome.finished or outcome.failed):
        return _summarise_own(outcome, shared, how.max_quarantined)
    code = _summarise(outcome, making, root)
    if making.work.job.producer == "negatives" and outcome.made and not outcome.failed:
        which = "" if outcome.name == "negatives" else f" --sidecar {outcome.name}"  # the audit's default
        say(f"look at them: trackmill audit {redact(root)}{which} --html sheet.html")
    if code in (ExitCode.FINE, ExitCode.INCOMPLETE):
        finish()
    return code


def _say_todo(making: Making) -> None:
    samples = sum(len(unit.items) for unit in making.todo)
    say(f"{len(making.todo)} parts of sidecar {making.name} to make, about {samples} samples")


def _make(making: Making, shared: SharedMaking) -> SidecarOutcome:
    """Make parts, and say how far it is."""
    from trackmill.pipeline.sidecars.progress import SidecarProgress
    from trackmill.pipeline.sidecars.run import make_parts

    progress, shown = SidecarProgress(making, own=shared.own if shared.part else None), 0

    def made(result: PartResult) -> None:
        nonlocal shown
        progress.part_done(result)
        if result.failed:
            complain(f"{result.file_name}: {clean(result.failed)}")
        for key, error_class, reason in result.quarantined[: max(0, _SHOWN - shown)]:
            warn(f"quarantined: {key}: {error_class}: {clean(reason)}")
            shown += 1

    try:
        return make_parts(making, made, progress.tick, _start, shared, progress.grow)
    finally:
        progress.close()


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


def _summarise_own(outcome: SidecarOutcome, shared: SharedMaking, allowed: str) -> ExitCode:
    """Print what one of several processes did, and what it leaves to the others."""
    samples, quarantined = sum(result.samples for result in outcome.made), outcome.quarantined_now
    whose = f"part {shared.part}" if shared.part else "this process"
    rows = counted(sum(result.rows for result in outcome.made), "row")
    size = readable_bytes(sum(result.num_bytes for result in outcome.made))
    done = f"{counted(len(outcome.made), 'unit')}, {counted(samples, 'sample')}"
    say(f"done by {whose}: {done} ({rows}, {size})")
    say_counts(outcome.counts)
    if quarantined:
        which = counted(quarantined, "sample is", "samples are")
        say(f"{which} quarantined; --only-quarantined retries, once all is done")
    if outcome.summed_up:
        say("all units are done; another process, which ended at the same moment, has summed up")
    else:
        elsewhere = len(shared.in_work(outcome.left))
        left = len(outcome.left) - elsewhere
        more = f", {left:,} of other parts, which nobody has begun" if left else ""
        units = counted(len(outcome.left), "unit is", "units are")
        say(f"{units} left: {elsewhere:,} in work elsewhere{more}; who does the last one sums up")
    if shared.given_up:
        complain(f"{counted(len(shared.given_up), 'unit was', 'units were')} given up, see above")
        return ExitCode.INCOMPLETE
    if allowed and quarantined > quarantine_limit(allowed, samples):
        which = counted(quarantined, "quarantined sample is", "quarantined samples are")
        say(f"{which} more than --max-quarantined {allowed} allows")
        return ExitCode.INCOMPLETE
    return ExitCode.FINE


def _summarise(outcome: SidecarOutcome, making: Making, root: str) -> ExitCode:
    made = [result for result in outcome.made if not result.failed]
    done = "nothing was left to do" if not outcome.made else f"{len(made)} parts made now"
    size = readable_bytes(sum(result.num_bytes for result in made))
    rows, samples = sum(result.rows for result in made), sum(result.samples for result in made)
    say(f"done: {done} ({rows} rows about {samples} samples, {size}), {outcome.parts} in all")
    counts = outcome.counts
    say_counts(counts, "counted" if outcome.whole is None else "counted in all")
    if not outcome.quarantined_now and counts.get("frames") and counts.get("frames not annotated") == counts["frames"]:
        warn("not one frame here is annotated: without annotated objects nothing is known not to be one of them")
    say(f"sidecar {outcome.name} of {redact(root)} (fingerprint {outcome.fingerprint})")
    quarantined = outcome.quarantined
    if quarantined:
        say(f"{quarantined} samples are quarantined in it; run again with --only-quarantined to retry them")
    if outcome.failed:
        complain(f"{len(outcome.failed)} parts could not be made; mend what is named above and run again")
        return ExitCode.FAILED
    if outcome.whole is not None:
        nothing = quarantined and quarantined == making.samples
    else:
        nothing = outcome.quarantined_now and outcome.quarantined_now == samples
    if nothing:
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
    extra="masa",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
