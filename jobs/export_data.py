"""Write a data set in another format: `python jobs/export_data.py ROOT --format coco --output FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import clean, note, say
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError

FORMATS = ("coco", "coco-vid", "youtube-vis", "yolo", "mot", "cvat", "fiftyone")
"""Written down here as well, since their own modules are slow to import."""
BESIDE = "energon"
"""No other form of the data, but what Megatron Energon wants beside the shards."""
MASKS = ("auto", "rle", "polygon", "none")


def add_options(p: JobParser) -> None:
    """What is written, and how."""
    add = p.option
    add("url", help="root of a data set, a .tar, or a folder of tars; a path or any URL such as s3://...")
    formats = "{" + ",".join((*FORMATS, BESIDE)) + "}"
    what = "what it becomes; energon: nothing else, but its index is written beside the shards"
    add("--format", required=True, type=OneOf((*FORMATS, BESIDE)), metavar=formats, help=what)
    add("--output", metavar="FOLDER", help="a folder of its own, local or any URL; none for energon")
    boxes = "annotated objects (objects, the default), proposals, or the rows of a sidecar by its name"
    add("--boxes", default="objects", metavar="WHICH", help=boxes)
    masks = "rle or polygon, where the format has them; auto (default): as it usually has them; none"
    add("--masks", type=OneOf(MASKS), default="auto", metavar="{" + ",".join(MASKS) + "}", help=masks)
    part = "what this data set is there (default train): several may go into one folder, as train and val"
    add("--part", default="train", metavar="NAME", help=part)
    add("--min-score", type=float, default=0.0, metavar="X", help="boxes with a lower score are left out (default 0)")
    add("--max-samples", type=positive, metavar="N", help="only the first N samples (default all)")


def run(options: Options) -> ExitCode:
    """Write, and say what was written and what was not."""
    from trackmill.pipeline.datasets.formats.export import ExportRequest, export
    from trackmill.pipeline.shards.reader import open_dataset

    if options.format == BESIDE:
        return _beside(options)
    if not options.output:
        raise InputError(f"--format {options.format} needs --output FOLDER")
    request = ExportRequest(
        format=options.format,
        output=options.output,
        boxes=options.boxes,
        masks=options.masks,
        part=options.part,
        min_score=options.min_score,
        max_samples=options.max_samples,
    )
    dataset = open_dataset(options.url)
    total = sum(max(0, shard.num_samples) for shard in dataset.shards)
    line = ProgressLine(min(total, options.max_samples or total), "exported")
    try:
        done = export(dataset, request, line)
    finally:
        line.close()
    for what, count in done.left_out.items():
        note(clean(f"left out: {count:,} {what}"))
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(done.counts.items()))
    say(f"{redact(options.output)}: {counts}")
    return ExitCode.FINE


def _beside(options: Options) -> ExitCode:
    from trackmill.pipeline.datasets.formats.energon import write_energon
    from trackmill.pipeline.shards.reader import open_dataset

    if options.output:
        raise InputError("--format energon writes into the data set itself, beside its shards: leave --output out")
    dataset = open_dataset(options.url)
    line = ProgressLine(len(dataset.stored), "indexed")
    try:
        shards, samples = write_energon(dataset, line)
    finally:
        line.close()
    say(f"{redact(options.url)}: .nv-meta and an index for each of {shards:,} shards, {samples:,} samples")
    return ExitCode.FINE


JOB = Job(
    name="export-data",
    description="Write a data set in another format: COCO, YouTube-VIS, YOLO, MOTChallenge, CVAT, FiftyOne.",
    add_options=add_options,
    run=run,
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
