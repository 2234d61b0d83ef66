"""Look at mined shards: a table, one sample, a contact sheet, statistics, or a check of every byte."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import clean, say, warn
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import canonical
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trackmill.pipeline.inspect.overlay import More
    from trackmill.pipeline.inspect.selection import Unreadable
    from trackmill.pipeline.shards.reader import Dataset


def add_options(p: JobParser) -> None:
    """A data set, and what to do with it."""
    add = p.option
    add("url", help="root of a data set, a .tar, or a folder of tars; a path or any URL such as s3://...")
    add("--key", help="show one sample, by its key or a part of it")
    add(
        "--keys",
        nargs="?",
        const="*",
        metavar="TEXT",
        help="list the samples whose key or URI holds TEXT (default: all), with their status",
    )
    add("--overlay", metavar="PNG", help="with --key: draw the sample with its boxes, masks and ids")
    add("--sidecar", metavar="NAME", help="with --overlay or --html: draw the boxes of a sidecar too, such as chains")
    add("--html", metavar="FILE", help="write a contact sheet: one HTML file, complete in itself")
    add(
        "--max-samples",
        type=positive,
        metavar="N",
        help="samples on the sheet (default 60), or read for --stats (default all)",
    )
    add("--verify", action="store_true", help="check every byte; exit with 1 when anything is wrong")
    add("--stats", action="store_true", help="read the samples and show statistics")
    add("--json", action="store_true", help="print JSON instead of text")


def run(options: Options) -> ExitCode:
    """Look; `ExitCode.FAILED` where --verify finds faults, `INCOMPLETE` where shards could not be read."""
    from trackmill.pipeline.inspect.selection import Unreadable
    from trackmill.pipeline.inspect.table import dataset_parts, print_tables
    from trackmill.pipeline.shards.reader import open_dataset

    if options.overlay and not options.key:
        raise InputError("--overlay draws one sample: name it with --key")
    if options.sidecar and not (options.overlay or options.html):
        raise InputError("--sidecar draws boxes: say where, with --html FILE, or --key KEY --overlay PNG")
    for target in filter(None, (options.html, options.overlay)):
        canonical(target)  # an impossible target is found before any work is done
    dataset = open_dataset(options.url, keep_damaged=True)
    if options.key:
        _sample(dataset, options)
        return ExitCode.FINE
    if options.keys is not None:
        return _keys(dataset, options)
    # What is written comes before what is printed: the reader of a pipe may have seen enough, and then nothing is lost.
    unreadable = Unreadable()
    sheet = _sheet(dataset, options, unreadable) if options.html else ""
    if options.stats:
        _statistics(dataset, options, unreadable)
    for line in unreadable.lines():
        warn(clean(line, 300))
    code = ExitCode.INCOMPLETE if unreadable.reasons else ExitCode.FINE
    if options.verify:
        code = _verify(dataset, options.json) or code
    if not (options.stats or options.verify):
        if options.json:
            print(json.dumps(_summary(dataset)))
        else:
            print_tables([*dataset_parts(dataset), *_sidecar_lines(dataset)])
    if sheet:
        print(sheet, file=sys.stderr if options.json else sys.stdout, flush=True)
    return code


def _keys(dataset: Dataset, options: Options) -> ExitCode:
    """One line a sample: for people to read, for programs to cut."""
    listed = 0
    for key, status, uri in dataset.search("" if options.keys == "*" else options.keys):
        listed += 1
        line = {"key": key, "status": status, "uri": redact(uri)}
        print(json.dumps(line) if options.json else "\t".join(clean(value, 2000) for value in line.values()))
    if not listed:
        say(f"no sample has {options.keys!r} in its key or URI")
    return ExitCode.FINE


def _sample(dataset: Dataset, options: Options) -> None:
    from trackmill.pipeline.inspect.overlay import draw_sample
    from trackmill.pipeline.inspect.table import print_tables, sample_parts
    from trackmill.pipeline.shards.reader import read_sample, whole_key

    sample = read_sample(dataset, whole_key(dataset, options.key))
    if options.overlay:
        publish_bytes(options.overlay, draw_sample(sample, more=_more(dataset, options)))
        print(f"wrote {redact(options.overlay)}", file=sys.stderr)
    print(json.dumps(sample.record.model_dump(mode="json"))) if options.json else print_tables(sample_parts(sample))


def _verify(dataset: Dataset, as_json: bool) -> ExitCode:
    from trackmill.pipeline.shards.unfinished import unfinished
    from trackmill.pipeline.shards.verify import verify
    from trackmill.pipeline.sidecars.verify import SidecarCheck

    sidecars = SidecarCheck(dataset)
    progress = ProgressLine(sum(max(0, shard.num_samples) for shard in dataset.shards), "verified")
    faults = verify(dataset, progress=progress, beside=sidecars.shard_done) + sidecars.rest()
    progress.close()
    warnings = [] if dataset.damaged else unfinished(dataset) + sidecars.unfinished()
    if as_json:
        listed = [{"shard": fault.shard, "member": fault.member, "what": fault.what} for fault in faults]
        print(json.dumps({"faults": listed, "warnings": warnings, "samples": progress.done}))
    else:
        for warning in warnings:
            warn(clean(warning, 200))
        for fault in faults:
            say(clean(str(fault), 600))
        if not faults:
            beside = f", sidecars {', '.join(sidecars.names)}" if sidecars.names else ""
            say(f"OK: {len(dataset.shards):,} shards, {progress.done:,} samples verified{beside}")
    return ExitCode.FAILED if faults else ExitCode.FINE


def _statistics(dataset: Dataset, options: Options, unreadable: Unreadable) -> None:
    from trackmill.pipeline.inspect.statistics import collect
    from trackmill.pipeline.inspect.table import cell, print_tables, statistics_parts
    from trackmill.pipeline.sidecars.showing import summarise_sidecars, summary_lines

    progress = ProgressLine(min(len(dataset.stored), options.max_samples or len(dataset.stored)), "read")
    statistics = collect(dataset, options.max_samples, progress, unreadable)
    progress.close()
    sidecars = summarise_sidecars(dataset)
    if options.json:
        # A data set without sidecars says what it always said.
        more: dict[str, object] = {"sidecars": [vars(sidecar) for sidecar in sidecars]} if sidecars else {}
        more |= {"unreadable": unreadable.reasons} if unreadable.reasons else {}
        print(json.dumps(statistics.as_dict() | more))
        return
    lines = [cell(line, 600) for sidecar in sidecars for line in summary_lines(sidecar)]
    print_tables([*statistics_parts(statistics), *lines])


def _sheet(dataset: Dataset, options: Options, unreadable: Unreadable) -> str:
    """Write the contact sheet; returns a line that says so."""
    from trackmill.pipeline.inspect.contact_sheet import write_contact_sheet

    count = options.max_samples or 60
    progress = ProgressLine(min(len(dataset.stored), count), "drew")
    more = _more(dataset, options)
    num_bytes = write_contact_sheet(dataset, options.html, count, progress=progress, more=more, unreadable=unreadable)
    progress.close()
    return f"contact sheet: {redact(options.html)} ({num_bytes / 1e6:.1f} MB), open it in a browser"


def _sidecar_lines(dataset: Dataset) -> list[RenderableType]:
    from trackmill.pipeline.inspect.table import cell
    from trackmill.pipeline.sidecars.showing import list_sidecars

    return [cell(line, 400) for line in list_sidecars(dataset)]


def _more(dataset: Dataset, options: Options) -> More | None:
    """Boxes of the sidecar that `--sidecar` names."""
    if not options.sidecar:
        return None
    from trackmill.pipeline.sidecars.showing import boxes_of

    return boxes_of(dataset, options.sidecar)


def _summary(dataset: Dataset) -> dict[str, object]:
    from trackmill.pipeline.shards.totals import COUNTS

    totals = dataset.totals
    return {
        "url": dataset.url,
        "shards": len(dataset.shards),
        "bytes": sum(shard.num_bytes for shard in dataset.shards),
        "statuses": dict(totals.statuses),
        "quarantined": dict(totals.reasons),
        "damaged_receipts": [what for _, what in dataset.damaged],
        **{name: totals.stored[name] for name in COUNTS},
    }


JOB = Job(name="inspect", description=__doc__, add_options=add_options, run=run)
main = JOB.main

if __name__ == "__main__":
    leave(main())
