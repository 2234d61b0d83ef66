"""Look at the pseudo-negatives of a data set before they are trained on: `python jobs/audit_negatives.py ROOT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.audit.settings import AuditSettings
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import clean, note, warn
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import canonical, is_local
from trackmill.schemas.config import build
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.audit.run import Audit
    from trackmill.pipeline.inspect.selection import Unreadable
    from trackmill.pipeline.shards.reader import Dataset


def add_options(p: JobParser) -> None:
    """A data set, which negatives of it, and where the sheet goes."""
    add = p.option
    add("root", metavar="ROOT", help="root of a data set that mining wrote; a path or any URL such as s3://...")
    which = "a sidecar with boxes and scores (default: negatives; without one, as --proposals)"
    add("--sidecar", metavar="NAME", help=which)
    add("--proposals", action="store_true", help="audit the proposals that mining marked as negatives in the records")
    add("--html", metavar="FILE", help="write a sheet of negatives to look at: one HTML file, complete in itself")
    add("--show", type=positive, default=24, metavar="N", help="negatives of each kind on the sheet (default 24)")
    add("--max-samples", type=positive, metavar="N", help="look at so many samples, evenly chosen (default all)")
    add("--json", action="store_true", help="print JSON instead of text")
    add("--min-score", key="min_score")
    add("--nms-iou", key="nms_iou")
    add("--max-boxes", key="max_boxes")


def settings(options: Options) -> AuditSettings:
    """How to look.

    Raises:
        InputError: an unknown key, or a value that cannot be.
    """
    return build(AuditSettings, options.values, redact(options.config) if options.config else "settings")


def run(options: Options) -> ExitCode:
    """Audit; `ExitCode.INCOMPLETE` where parts or shards could not be read."""
    from trackmill.pipeline.audit.rows import find_negatives
    from trackmill.pipeline.audit.run import audit_negatives
    from trackmill.pipeline.inspect.selection import Unreadable
    from trackmill.pipeline.shards.reader import open_dataset

    how = settings(options)
    if options.sidecar and options.proposals:
        raise InputError("--sidecar and --proposals name different negatives: choose one")
    if options.html:
        url = canonical(options.html)  # an impossible target is found before any work is done
        if is_local(url) and Path(options.html).expanduser().is_dir():
            raise InputError(f"--html {redact(options.html)}: is a folder; name the file")
    dataset = open_dataset(options.root, keep_damaged=True)
    negatives = find_negatives(dataset, options.sidecar or "", options.proposals)
    if not (options.sidecar or options.proposals or negatives.sidecar):
        note("there is no sidecar of negatives; these are proposals that the records mark as negatives")
    unreadable = Unreadable()
    progress = ProgressLine(min(len(dataset.stored), options.max_samples or len(dataset.stored)), "audited")
    audit = audit_negatives(
        dataset,
        negatives,
        how,
        max_samples=options.max_samples,
        show=options.show,
        progress=progress,
        unreadable=unreadable,
    )
    progress.close()
    sheet = _sheet(audit, dataset, options.html, negatives.sidecar, unreadable) if options.html else ""
    for line in [*(f"{what}" for _, what in dataset.damaged), *unreadable.lines()]:
        warn(clean(line, 400))
    _print(audit, dataset, options.json)
    if sheet:
        print(sheet, file=sys.stderr if options.json else sys.stdout, flush=True)
    return ExitCode.INCOMPLETE if unreadable.reasons or dataset.damaged else ExitCode.FINE


def _sheet(audit: Audit, dataset: Dataset, url: str, sidecar: str, unreadable: Unreadable) -> str:
    """Write the sheet; returns a line that says so."""
    from trackmill.pipeline.audit.sheet import write_sheet

    progress = ProgressLine(sum(map(len, audit.shown.values())), "drew", things="negatives")
    num_bytes = write_sheet(audit, dataset, url, sidecar, progress, unreadable)
    progress.close()
    return f"sheet: {redact(url)} ({num_bytes / 1e6:.1f} MB), open it in a browser"


def _print(audit: Audit, dataset: Dataset, as_json: bool) -> None:
    from trackmill.pipeline.audit.advice import advice
    from trackmill.pipeline.audit.text import audit_lines
    from trackmill.pipeline.inspect.table import print_tables

    if as_json:
        values: dict[str, Any] = {"url": redact(dataset.url), **audit.as_dict(), "hints": advice(audit)}
        print(json.dumps(values))
    else:
        print_tables(audit_lines(audit, dataset.url))


JOB = Job(
    name="audit",
    description="Audit pseudo-negatives: how many, which classes and scores, and which look like unlabelled objects.",
    add_options=add_options,
    run=run,
    settings="trackmill.pipeline.audit.settings:AuditSettings",
    resolve=settings,
    example="persistent_frames=4",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
