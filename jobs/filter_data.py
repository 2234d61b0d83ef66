"""Keep some samples of a data set, without decoding: `python jobs/filter_data.py ROOT --output ROOT ...`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import clean, note, say, warn
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.console.words import counted, readable_bytes
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.datasets.inputs import Source
    from trackmill.pipeline.datasets.selection import Selection

COUNTED = ("objects", "proposals", "negatives", "frames")
BOUNDED = (*COUNTED, "mean_score")
GROUPINGS = ("video", "folder", "sample")


def add_options(p: JobParser) -> None:
    """A data set, and which of its samples are kept."""
    p.option("url", help="root of a data set, local or any URL; it stays as it is")
    add_write_options(p)
    add_selection_options(p)
    add = p.option
    add("--share", metavar="X", help="keep this share of the groups, such as 0.1, chosen by a hash of their names")
    add_group_options(p)


def add_write_options(p: JobParser) -> None:
    """Where the new data set goes, and how it is cut; the same for filter, merge and split."""
    add = p.option
    add("--output", required=True, metavar="ROOT", help="root of the new data set; the same command goes on with it")
    add("--unit-frames", type=positive, metavar="N", help="frames in a unit (default: a 64th of all, from 8 to 512)")
    add("--max-bytes", type=positive, default=256 << 20, metavar="N", help="of a shard (default 268435456)")
    add("--max-samples", type=positive, default=4096, metavar="N", help="samples of a shard (default 4096)")
    add("--no-sidecars", action="store_true", help="leave the tables beside the shards behind")
    add("--workers", type=positive, default=4, metavar="N", help="threads that copy side by side (default 4)")


def add_selection_options(p: JobParser) -> None:
    """Which samples; all that are given must hold."""
    add = p.option
    add("--source", nargs="+", default=[], metavar="NAME", help="only of these sources, such as sa1b")
    add("--licence", nargs="+", default=[], metavar="TEXT", help="only under these, as the data set's card spells them")
    add("--kind", type=OneOf(("picture", "clip")), metavar="{picture,clip}", help="only pictures, or only clips")
    for name in COUNTED:
        add(f"--min-{name}", type=_whole, metavar="N", help=f"only samples with so many {name} or more")
        add(f"--max-{name}", type=_whole, metavar="N", help=f"only samples with so many {name} or fewer")
    for which, how in (("min", "or more"), ("max", "or less")):
        what = f"only samples whose proposals score X {how} on average"
        add(f"--{which}-mean-score", type=_score, metavar="X", help=what)
    add("--keys", metavar="FILE", help="only samples whose keys are in a file, one a line")
    add("--without-keys", metavar="FILE", help="not the samples whose keys are in a file")
    add("--every", type=positive, default=1, metavar="N", help="of what is left, the first and every N-th after it")


def add_group_options(p: JobParser) -> None:
    """What a hash keeps together."""
    groups = "{" + ",".join(GROUPINGS) + "}"
    what = "what stays together: the clips of a video (default), the files of a folder, or each sample alone"
    p.option("--group", type=OneOf(GROUPINGS), default="video", metavar=groups, help=what)
    p.option("--seed", type=_whole, default=0, metavar="N", help="another one chooses other groups (default 0)")


def selection_of(options: Options, span: tuple[int, int] | None = None) -> Selection:
    """The samples that a command line asks for.

    Raises:
        InputError: a file of keys that holds something else.
        OSError: it could not be read.
    """
    from trackmill.pipeline.datasets.selection import Selection, read_keys

    bounds = {
        which: {name: value for name in BOUNDED if (value := getattr(options, f"{which}_{name}")) is not None}
        for which in ("min", "max")
    }
    return Selection(
        sources=tuple(options.source),
        licenses=tuple(options.licence),
        kind=options.kind,
        least=bounds["min"],
        most=bounds["max"],
        keys=read_keys(options.keys) if options.keys else None,
        without=read_keys(options.without_keys) if options.without_keys else frozenset(),
        span=span,
        group=getattr(options, "group", "video"),
        seed=getattr(options, "seed", 0),
        every=options.every,
    )


def run(options: Options) -> ExitCode:
    """Keep what was asked for."""
    from trackmill.pipeline.datasets.derive import open_sources
    from trackmill.pipeline.datasets.groups import spans

    span = spans({"--share": options.share})["--share"] if options.share else None
    selection = selection_of(options, span)
    write("filter", options, [options.url], open_sources([options.url], tell), options.output, selection)
    return ExitCode.FINE


def write(
    by: str, options: Options, inputs: Sequence[str], sources: Sequence[Source], output: str, selection: Selection
) -> None:
    """Make one data set, and say what became of it.

    Args:
        by: name of the job.
        options: with those of `add_write_options`.
        inputs: URLs.
        sources: the same, opened.
        output: its root.
        selection: its samples.

    Raises:
        Exception: see `trackmill.pipeline.datasets.derive.derive`.
    """
    from trackmill.pipeline.datasets.derive import Request, derive
    from trackmill.pipeline.datasets.plan import Limits

    limits = Limits(max_bytes=options.max_bytes, max_samples=options.max_samples, unit_frames=options.unit_frames or 0)
    request = Request(
        by=by,
        inputs=inputs,
        output=output,
        selection=selection,
        limits=limits,
        duplicates=getattr(options, "duplicates", "refuse"),
        sidecars=not options.no_sidecars,
        threads=options.workers,
    )
    lines: list[ProgressLine] = []

    def progress(samples: int) -> ProgressLine:
        lines.append(ProgressLine(samples, "copied"))
        return lines[-1]

    try:
        made = derive(request, sources, progress)
    finally:
        for line in lines:
            line.close()
    for name, why in made.carried.left_out.items():
        tell(f"the sidecar {name} does not come along: {why}")
    if made.plan.twice:
        note(f"{counted(made.plan.twice, 'sample is', 'samples are')} in an earlier input too, and taken from there")
    if made.plan.unscored:
        samples = counted(made.plan.unscored, "sample was", "samples were")
        tell(f"{samples} left out: they have no mean score, as an older version mined them or all scores are 0")
    beside = ", ".join(about.name for about in made.carried.abouts)
    totals = made.totals
    say(
        f"{redact(output)}: {totals.statuses['ok']:,} of {counted(made.plan.of, 'sample')} in "
        f"{counted(totals.shards, 'shard')}, {readable_bytes(totals.num_bytes)}"
        + (f"; sidecars {beside}" if beside else "")
        + ("" if made.done_now else "; all was there already")
    )


def tell(text: str) -> None:
    """Something that the result lacks."""
    warn(clean(text, 400))


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise InputError(f"{text[:40]!r} is no whole number") from None
    if not 0 <= number < 1 << 31:
        raise InputError(f"{number} is out of range: from 0 to {(1 << 31) - 1}")
    return number


def _score(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"{text[:40]!r} is no number") from None
    if not math.isfinite(number):
        raise InputError(f"{text[:40]!r} is no score")
    return number


JOB = Job(
    name="filter",
    description="Keep some samples of a data set: a new one out of their bytes, without decoding.",
    add_options=add_options,
    run=run,
    goes_on="nothing is lost: the same command goes on from here",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
