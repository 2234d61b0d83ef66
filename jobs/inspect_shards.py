"""Look at mined shards: a table, one sample, a contact sheet, statistics, or a check of every byte."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.inspect.contact_sheet import write_contact_sheet
from trackmill.pipeline.inspect.overlay import draw_sample
from trackmill.pipeline.inspect.statistics import collect
from trackmill.pipeline.inspect.table import dataset_parts, plain, sample_parts, show, statistics_parts
from trackmill.pipeline.shards.reader import Dataset, open_dataset, read_sample
from trackmill.pipeline.shards.verify import unfinished, verify
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import canonical
from trackmill.pipeline.storage.publish import publish_bytes


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="inspect_shards.py", description=__doc__)
    p.add_argument("url", help="root of a data set, a .tar, or a folder of tars; a path or any URL such as s3://...")
    p.add_argument("--key", help="show one sample")
    p.add_argument("--overlay", metavar="PNG", help="with --key: draw the sample with its boxes, masks and ids")
    p.add_argument("--html", metavar="FILE", help="write a contact sheet: one HTML file, complete in itself")
    p.add_argument(
        "--max-samples", type=_positive, help="samples on the sheet (default 60), or read for --stats (default all)"
    )
    p.add_argument("--verify", action="store_true", help="check every byte; exit with 1 when anything is wrong")
    p.add_argument("--stats", action="store_true", help="read the samples and show statistics")
    p.add_argument("--json", action="store_true", help="print JSON instead of text")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status: 0 fine, 1 faults were found, 2 the user or the storage made a mistake."""
    options = parser().parse_args(arguments)
    if options.overlay and not options.key:
        print("--overlay draws one sample: name it with --key", file=sys.stderr)
        return 2
    try:
        for target in filter(None, (options.html, options.overlay)):
            canonical(target)  # an impossible target is told before any work is done
        dataset = open_dataset(options.url, keep_damaged=True)
        if options.key:
            return _sample(dataset, options)
        status = 0
        if options.stats:
            _statistics(dataset, options)
        if options.verify:
            status = _verify(dataset, options.json)
        if not (options.stats or options.verify):
            print(json.dumps(_summary(dataset))) if options.json else show(dataset_parts(dataset))
        if options.html:
            _sheet(dataset, options)
        return status
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {plain(scrub(str(error)), 1000)}", file=sys.stderr)
        return 2


def _sample(dataset: Dataset, options: argparse.Namespace) -> int:
    sample = read_sample(dataset, options.key)
    print(sample.record.model_dump_json()) if options.json else show(sample_parts(sample))
    if options.overlay:
        publish_bytes(options.overlay, draw_sample(sample))
        print(f"wrote {options.overlay}", file=sys.stderr)
    return 0


def _verify(dataset: Dataset, as_json: bool) -> int:
    progress = ProgressLine(sum(max(0, shard.num_samples) for shard in dataset.shards), "verified")
    faults = verify(dataset, progress=progress)
    progress.close()
    warnings = [] if dataset.damaged else unfinished(dataset)
    if as_json:
        told = [{"shard": fault.shard, "member": fault.member, "what": fault.what} for fault in faults]
        print(json.dumps({"faults": told, "warnings": warnings, "samples": progress.done}))
    else:
        for warning in warnings:
            print(f"warning: {plain(warning)}", file=sys.stderr)
        for fault in faults:
            print(plain(fault, 600))
        if not faults:
            print(f"OK: {len(dataset.shards):,} shards, {progress.done:,} samples verified")
    return 1 if faults else 0


def _statistics(dataset: Dataset, options: argparse.Namespace) -> None:
    progress = ProgressLine(min(len(dataset.stored), options.max_samples or len(dataset.stored)), "read")
    found = collect(dataset, options.max_samples, progress)
    progress.close()
    print(json.dumps(found.as_dict())) if options.json else show(statistics_parts(found))


def _sheet(dataset: Dataset, options: argparse.Namespace) -> None:
    count = options.max_samples or 60
    progress = ProgressLine(min(len(dataset.stored), count), "drew")
    num_bytes = write_contact_sheet(dataset, options.html, count, progress=progress)
    progress.close()
    where = sys.stderr if options.json else sys.stdout
    print(f"contact sheet: {redact(options.html)} ({num_bytes / 1e6:.1f} MB), open it in a browser", file=where)


def _summary(dataset: Dataset) -> dict[str, object]:
    counts = ("frames", "objects", "proposals", "negatives", "refused")
    return {
        "url": dataset.url,
        "shards": len(dataset.shards),
        "bytes": sum(shard.num_bytes for shard in dataset.shards),
        "statuses": dict(Counter(row.status for row in dataset.rows)),
        "quarantined": dict(Counter(row.error_class for row in dataset.rows if row.status == "quarantined")),
        "damaged_receipts": [what for _, what in dataset.damaged],
        **{name: sum(getattr(row, name) for row in dataset.stored) for name in counts},
    }


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
