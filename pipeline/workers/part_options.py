"""The options of a job whose work several processes share: `--part`, `--own-share-only`, `--wait`."""

from __future__ import annotations

from collections.abc import Iterable

from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.workers.parts import Part, read_part
from trackmill.schemas.errors import InputError

Refusal = tuple[str, object, str]
"""Options, whether something is given that they do not go with, and what and why."""


def add_part_options(p: JobParser) -> None:
    """See `part_of`."""
    add = p.option
    add(
        "--part",
        metavar="I/N",
        help="do share I of N in this process, without Ray, then help the other parts; slurm: the place of a task in "
        "its job array; kubernetes/N: that of a pod in an indexed job with N completions",
    )
    add("--own-share-only", action="store_true", help="with --part: do not help the other parts")
    add("--wait", action="store_true", help="end when all is done, and not already when others have the rest in hand")


def part_of(options: Options, *, before: Iterable[Refusal] = (), parted: str = "--part --wait") -> Part | None:
    """What `--part` says.

    Args:
        options: with those of `add_part_options`, `--plan-only` and `--executor`.
        before: what else does not go together.
        parted: options that do not go with `--plan-only`.

    Raises:
        InputError: options that do not go together, or no part.
    """
    refuse(
        (
            *before,
            (parted, options.plan_only, "--plan-only: it only looks at a few items"),
            ("--own-share-only", not options.part, "a run without --part: it has no share"),
        ),
        options,
    )
    if not options.part:
        return None
    if options.executor == "ray":
        raise InputError("--part does its share in this process; it does not go with --executor ray")
    return read_part(options.part)


def refuse(refusals: Iterable[Refusal], options: Options) -> None:
    """Raises `InputError` where options are given that do not go together."""
    for others, given, why in refusals:
        for other in others.split():
            if given and getattr(options, other.removeprefix("--").replace("-", "_")):
                raise InputError(f"{other} does not go with {why}")
