"""Train from shards: `python jobs/train.py --recipe masa_lite0 --data URL --output URL`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console import output as console
from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.layers import nested
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, device, positive
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import canonical
from trackmill.schemas.config import ConfigError, merge
from trackmill.schemas.names import nearest

if TYPE_CHECKING:
    from trackmill.pipeline.storage.output_lock import LockLost
    from trackmill.pipeline.training.loop import TrainingResult
    from trackmill.pipeline.training.prepare import TrainingPlan
    from trackmill.pipeline.training.recipe import Recipe

RECIPES = Path(__file__).resolve().parent / "recipes"
SETTINGS = {
    "engine": "engine.name",
    "max_steps": "max_steps",
    "checkpoint_every": "checkpoint.every",
    "seed": "seed",
}
"""Key of the recipe that an option changes."""


def add_options(p: JobParser) -> None:
    """Those that are not given are left to the recipe."""
    add = p.option
    add("--recipe", required=True, metavar="NAME", help=f"{', '.join(recipe_names())}; or the path of a .toml file")
    add("--data", metavar="URL", help="root of the data set, the --output of a mining run")
    add("--output", required=True, metavar="URL", help="root of the run; the same command with the same one resumes")
    add("--resume", default="auto", metavar="WHAT", help="auto (default), never, or the URL of a checkpoint")
    changed = "go on although these keys of the recipe, or `data`, differ from the checkpoint's; it is recorded"
    add("--allow-changed", nargs="+", action="extend", default=[], metavar="KEY", help=changed)
    ranks = "ranks, one GPU each where there are any (default 1)"
    add("--workers", aliases=["--num-workers"], type=positive, metavar="N", help=ranks)
    engines = ["torch", "deepspeed"]
    add("--engine", type=OneOf(engines), metavar="{torch,deepspeed}", help="how tensors are spread over ranks")
    launchers = "local: this process; torchrun: one of those that it has started; several ranks without it: ray"
    names = ["local", "torchrun", "ray"]
    add("--launcher", type=OneOf(names), metavar=f"{{{','.join(names)}}}", help=launchers)
    add(
        "--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 (default auto: a GPU where there is one)"
    )
    add("--max-steps", type=positive, metavar="N", help="stop after so many steps; the schedule stays as it is")
    add("--checkpoint-every", type=positive, metavar="K", help="steps between two checkpoints")
    add("--seed", type=int, metavar="S", help="of everything that is random")
    add("--dry-run", action="store_true", help="say what it would take, with a few steps measured; write nothing")


def recipe_names() -> list[str]:
    """Those that come with Trackmill."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def settings(options: Options) -> Recipe:
    """The recipe, with what the command line changes.

    Raises:
        ConfigError: no such recipe, an unknown key, or a value that cannot be.
    """
    name = options.recipe
    if name is None:
        raise ConfigError(f"--recipe is needed: {', '.join(recipe_names())}, or the path of a .toml file")
    if name not in recipe_names() and not (name.endswith(".toml") or "/" in name):
        # Before PyTorch is imported, so that a typing error is answered at once.
        advice = (
            nearest(name, recipe_names()),
            f"known are {', '.join(recipe_names())}; or give the path of a .toml file",
        )
        raise ConfigError("; ".join(filter(None, [f"no recipe is called {name!r}", *advice])))
    values = options.values
    for option, key in SETTINGS.items():
        if getattr(options, option) is not None:
            values = merge(values, nested(key, getattr(options, option)))
    if options.data:
        values = merge(values, nested("data.url", canonical(options.data)))

    from trackmill.pipeline.training.recipe_files import load_recipe

    return load_recipe(name, values, RECIPES)


def run(options: Options) -> ExitCode:
    """Check everything, train, say where the result lies."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    launcher, ranks = choose_launcher(options, world)
    canonical(options.output)
    recipe = settings(options)

    from trackmill.pipeline.training.dry_run import describe_run, dry_run
    from trackmill.pipeline.training.prepare import begin, prepare_training
    from trackmill.pipeline.training.rank_process import find_device

    place = None if launcher == "ray" else find_device(options.device)
    plan = prepare_training(
        recipe, options.output, ranks, options.resume, build=not options.dry_run, allowed=options.allow_changed
    )
    if options.dry_run:
        say(rank, dry_run(plan, ranks, find_device(options.device)))
        return ExitCode.FINE
    say(rank, [f"recipe {recipe.name}: {redact(options.recipe)}, output {redact(plan.output)}"])
    say(rank, describe_run(plan, ranks))
    if plan.finished:
        say(rank, [f"all {plan.total_steps:,} steps are done already: nothing is left to do"])
        say(rank, closing(plan))
        return ExitCode.FINE
    if plan.start is None:
        say(rank, ["starts at step 0"])
    else:
        say(rank, [f"goes on after step {plan.start.step:,}, from {redact(plan.start.url)}"])
    if rank:
        return start(options, plan, launcher, ranks, str(place))

    from trackmill.pipeline.storage.output_lock import locked

    with locked(plan.output, JOB.name, on_lost=leave_at_once):
        begin(plan)
        return start(options, plan, launcher, ranks, str(place))


def start(options: Options, plan: TrainingPlan, launcher: str, ranks: int, device: str) -> ExitCode:
    """Train what was prepared, and say where the result lies."""
    from trackmill.pipeline.training.launch import run_local

    rank, recipe = int(os.environ.get("RANK", 0)), plan.recipe
    # Looked at once; a worker that starts again must not stumble over its own run's checkpoints.
    resume = "auto" if options.resume == "never" else options.resume
    if launcher == "ray":
        from trackmill.pipeline.training.ray.ray_train import run_ray

        plan = dataclasses.replace(plan, built=None)  # ranks build their own: this process needs the memory no more
        result = run_ray(
            recipe,
            plan.output,
            num_workers=ranks,
            device=options.device,
            resume=resume,
            allowed=options.allow_changed,
        )
    else:
        result = run_local(
            recipe,
            plan.output,
            device=device,
            resume=resume,
            allowed=options.allow_changed,
            built=plan.built,
            notice=lambda line: say(rank, [line]),
        )
    return summarise(rank, plan, result)


def leave_at_once(lost: LockLost) -> None:
    """End this process where it stands: a checkpoint that it still wrote would lie in another process's run."""
    console.complain(str(lost))
    os._exit(ExitCode.FAILED)


def choose_launcher(options: Options, world: int) -> tuple[str, int]:
    """`local` or `ray`, and the number of ranks.

    Raises:
        ConfigError: several ranks are asked for where there is one process.
    """
    several = (options.workers or 1) > 1
    if options.launcher == "torchrun":
        from trackmill.pipeline.training.rank_process import check_torchrun

        check_torchrun()
        if (options.workers or world) != world:
            raise ConfigError(f"torchrun has started {world} processes; leave --workers away")
        return "local", world
    if world > 1:
        if options.launcher == "ray" or (options.workers or world) != world:
            raise ConfigError(f"torchrun has started {world} processes; leave --workers and --launcher ray away")
        return "local", world
    launcher = options.launcher or ("ray" if several or os.environ.get("RAY_ADDRESS") else "local")
    if launcher == "local" and several:
        raise ConfigError(
            f"--launcher local is one process; for {options.workers} ranks use --launcher ray, or "
            f"torchrun --nproc-per-node {options.workers} jobs/train.py --launcher torchrun ..."
        )
    return launcher, options.workers or 1


def summarise(rank: int, plan: TrainingPlan, result: TrainingResult) -> ExitCode:
    """Print how it ended."""
    if result.interrupted:
        done = f"{result.step:,} of {result.total_steps:,}"
        say(rank, [f"stopped after step {done}, which is saved; the same command goes on"])
        return ExitCode.STOPPED
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    say(rank, [f"done: {result.step:,} steps" + (f"; {metrics}" if metrics else "")])
    say(rank, closing(plan))
    return ExitCode.FINE


def closing(plan: TrainingPlan) -> Iterable[str]:
    """Where the result lies and how it is used."""
    from trackmill.models.registry import MODELS
    from trackmill.pipeline.tasks import TASKS, task_class
    from trackmill.pipeline.training.result import result_url

    url = redact(result_url(plan.output))
    yield f"weights: {url}"
    # A task of somebody's own that is derived from one of ours trains the same network.
    if any(f"{base.__module__}:{base.__qualname__}" in TASKS.values() for base in task_class(plan.recipe.task).__mro__):
        model = getattr(getattr(plan.recipe, "model", None), "variant", "")
        named = f"--model {model} " if model in MODELS else ""
        yield f"use them: trackmill track {named}--weights {url} ..., likewise evaluate and export"


def say(rank: int, lines: Iterable[str]) -> None:
    """Lines for people, from one rank."""
    for line in lines:
        if rank == 0:
            console.say(line)


JOB = Job(
    name="train",
    description="Train a model from shards; the same command goes on from the last checkpoint.",
    add_options=add_options,
    run=run,
    resolve=settings,
    example="optim.lr=0.02",
    goes_on="the same command goes on from the last checkpoint",
    extra="train",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
