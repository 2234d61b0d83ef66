"""Train from shards: `python jobs/train.py --recipe masa_lite0 --data URL --output URL`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.loader.loader import WorkerDied
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import canonical, read_bytes
from trackmill.pipeline.training.dry_run import describe_run, dry_run
from trackmill.pipeline.training.launch import Prepared, RunFailed, begin, find_device, prepare, ranks_around, run_local
from trackmill.pipeline.training.loop import Outcome
from trackmill.pipeline.training.ranks import OtherRankFailed
from trackmill.pipeline.training.recipe import Recipe, load_recipe
from trackmill.pipeline.training.result import result_url
from trackmill.pipeline.training.steps import NonFinite
from trackmill.schemas.config import ConfigError, merge, parse_toml

RECIPES = Path(__file__).resolve().parent / "recipes"
USER_ERROR, FAILED, INTERRUPTED = 2, 1, 130


def parser() -> argparse.ArgumentParser:
    """The command line; every option that is not given is left to the recipe."""
    p = argparse.ArgumentParser(prog="train.py", description=__doc__)
    add = p.add_argument
    names = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
    add("--recipe", required=True, metavar="NAME", help=f"{names}; or the path of a .toml file")
    add("--data", metavar="URL", help="root of the data set, as jobs/mine_proposals.py wrote it")
    add("--output", required=True, metavar="URL", help="root of the run; the same command with the same one resumes")
    add("--resume", default="auto", metavar="WHAT", help="auto (default), never, or the URL of a checkpoint")
    add("--num-workers", type=_positive, metavar="N", help="ranks, one GPU each where there are any (default 1)")
    add("--engine", choices=["torch", "deepspeed"], help="how tensors are spread over ranks")
    add("--launcher", choices=["local", "ray"], help="local: this process, or torchrun's; several ranks: ray")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto: a GPU where there is one)")
    add("--max-steps", type=_positive, metavar="N", help="stop after so many steps; the schedule stays as it is")
    add("--checkpoint-every", type=_positive, metavar="K", help="steps between two checkpoints")
    add("--seed", type=int, metavar="S", help="of everything that is random")
    add("--dry-run", action="store_true", help="say what it would take, with a few steps measured; write nothing")
    add("--config", metavar="FILE", help="further settings as TOML; the command line wins over it")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. optim.lr=0.02")
    return p


def settings(options: argparse.Namespace) -> Recipe:
    """The recipe, then `--config`, then `--set`, then the options."""
    values: dict[str, Any] = {}
    if options.config:
        values = parse_toml(read_bytes(options.config).decode(), redact(options.config))
    for assignment in options.set:
        values = merge(values, _assignment(assignment))
    for key, value in (
        ("data.url", canonical(options.data) if options.data else None),
        ("engine.name", options.engine),
        ("max_steps", options.max_steps),
        ("checkpoint.every", options.checkpoint_every),
        ("seed", options.seed),
    ):
        if value is not None:
            values = merge(values, _nested(key, value))
    return load_recipe(options.recipe, values, RECIPES)


def run(options: argparse.Namespace) -> int:
    """Check everything, train, say where the result lies; returns the exit code."""
    rank, world = ranks_around()
    launcher, ranks = choose_launcher(options, world)
    recipe = settings(options)
    device = None if launcher == "ray" else find_device(options.device)
    prepared = prepare(recipe, options.output, ranks, options.resume)
    if options.dry_run:
        say(rank, dry_run(prepared, ranks, find_device(options.device)))
        return 0
    say(rank, [f"recipe {recipe.name}: {redact(options.recipe)}, output {redact(prepared.output)}"])
    say(rank, describe_run(prepared, ranks))
    if prepared.finished:
        say(rank, [f"all {prepared.total_steps:,} steps are done already: nothing is left to do"])
        say(rank, closing(prepared.output))
        return 0
    if prepared.start is None:
        say(rank, ["starts at step 0"])
    else:
        say(rank, [f"goes on after step {prepared.start.step:,}, from {redact(prepared.start.url)}"])
    if rank == 0:
        begin(prepared)
    # Looked at once; a worker that starts again must not stumble over its own run's checkpoints.
    resume = "auto" if options.resume == "never" else options.resume
    if launcher == "ray":
        from trackmill.pipeline.training.ray.ray_train import run_ray

        outcome = run_ray(recipe, prepared.output, num_workers=ranks, device=options.device, resume=resume)
    else:
        outcome = run_local(
            recipe,
            prepared.output,
            device=str(device),
            resume=resume,
            notice=lambda line: say(rank, [line]),
        )
    return summarise(rank, prepared, outcome)


def choose_launcher(options: argparse.Namespace, world: int) -> tuple[str, int]:
    """`local` or `ray`, and the number of ranks.

    Raises:
        ConfigError: several ranks are asked for where there is one process.
    """
    several = (options.num_workers or 1) > 1
    if world > 1:
        if options.launcher == "ray" or (options.num_workers or world) != world:
            raise ConfigError(f"torchrun has started {world} processes; leave --num-workers and --launcher ray away")
        return "local", world
    launcher = options.launcher or ("ray" if several or os.environ.get("RAY_ADDRESS") else "local")
    if launcher == "local" and several:
        raise ConfigError(
            f"--launcher local is one process; for {options.num_workers} ranks use --launcher ray, or "
            f"torchrun --nproc-per-node {options.num_workers} jobs/train.py --launcher local ..."
        )
    return launcher, options.num_workers or 1


def summarise(rank: int, prepared: Prepared, outcome: Outcome) -> int:
    """Print how it ended; returns the exit code."""
    if outcome.interrupted:
        done = f"{outcome.step:,} of {outcome.total_steps:,}"
        say(rank, [f"stopped after step {done}, which is saved; the same command goes on"])
        return INTERRUPTED
    told = ", ".join(f"{name} {value:.4g}" for name, value in outcome.metrics.items())
    say(rank, [f"done: {outcome.step:,} steps" + (f"; {told}" if told else "")])
    say(rank, closing(prepared.output))
    return 0


def closing(output: str) -> Iterable[str]:
    """Where the result lies and how it is used."""
    url = redact(result_url(output))
    yield f"weights: {url}"
    yield f"use them with --weights {url}, e.g. of jobs/track.py"


def say(rank: int, lines: Iterable[str]) -> None:
    """Lines for people, without credentials, from one rank."""
    for line in lines:
        if rank == 0:
            print(scrub(line), flush=True)


def _assignment(text: str) -> dict[str, Any]:
    """`optim.lr=0.02` as nested values; the value is TOML, a bare word is text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: should be KEY=VALUE, such as optim.lr=0.02")
    try:
        parsed = parse_toml(f"value = {value.strip()}", "--set")["value"]
    except ConfigError:
        parsed = value.strip()
    return _nested(key.strip(), parsed)


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status: 0 done, 1 training failed, 2 a mistake of the user, a file or the storage, 130 stopped."""
    options = parser().parse_args(arguments)
    try:
        return run(options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    except (NonFinite, OtherRankFailed, RunFailed, WorkerDied) as error:
        print(f"error: {scrub(str(error))}", file=sys.stderr)
        return FAILED
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {scrub(str(error))}", file=sys.stderr)
        return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
