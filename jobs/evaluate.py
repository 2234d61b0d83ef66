"""Compare tracks with ground truth: HOTA, MOTA, IDF1, TETA and Track mAP by the rules of each benchmark."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import say
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.evaluation.association.settings import AssociationSettings
from trackmill.pipeline.evaluation.compare import compare, named_results
from trackmill.pipeline.evaluation.frame_range import is_frame_range
from trackmill.pipeline.evaluation.report.comparison import Comparison, print_comparison, write_comparison_html
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.report.table import print_report
from trackmill.pipeline.evaluation.request import Options as Choices
from trackmill.pipeline.evaluation.run import BENCHMARKS, evaluate
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.output_folder import check_output_folder
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import basename, canonical, dirname
from trackmill.schemas.config import Settings, build
from trackmill.schemas.errors import InputError

ASSOCIATION = "association"


def add_options(p: JobParser) -> None:
    """Those of every benchmark, choices that change numbers, and those of the association benchmark."""
    add, names = p.option, [*BENCHMARKS, ASSOCIATION]
    add("--benchmark", required=True, type=OneOf(names), metavar="NAME", help=", ".join(names))
    add("--gt", required=True, metavar="URL", help="ground truth: a folder, a flat folder, or one JSON")
    what = "what the tracker wrote: a folder of SEQUENCE.txt, or one JSON; several as NAME=URL NAME=URL, for one table"
    add("--results", nargs="+", action="extend", metavar="URL", help=what)
    add("--output", aliases=["--out"], metavar="FILE", help="write everything as JSON")
    add("--html", metavar="FILE", help="write a page with plots and the worst moments, complete in itself")
    add("--pictures", metavar="URL", help="root of the pictures, for --html and for --embeddings")
    add(
        "--frames",
        metavar="FROM:TO",
        help="only these frames of MOTChallenge text, from 1; 301: is the rest, 0.5: a half",
    )
    what = "processes that evaluate sequences (default: one a free processor where that pays); numbers are the same"
    add("--workers", type=positive, metavar="N", help=what)
    add("--sequences", key="sequences", metavar="NAME", help="only these")

    def rule(name: str, key: str, **keywords: str) -> None:
        add(name, key=key, settings=Choices, group=rules, **keywords)

    rules = p.add_argument_group("choices that change numbers (each is named in the report)")
    rule("--iou", "iou")
    rule("--metrics", "metrics", metavar="FAMILY", help="only these: hota, clear, identity, teta, trackmap")
    rule("--gt-file", "gt_file", metavar="NAME")
    rule("--classes", "classes", metavar="CLASS")
    rule("--preprocess", "preprocess")
    rule("--class-vote", "class_vote")
    rule("--bdd-rule", "bdd_rule")
    rule("--max-detections", "max_detections")
    rule("--base-classes", "base_classes", metavar="FILE")

    def link(name: str, key: str, **keywords: str) -> None:
        add(name, key=key, settings=AssociationSettings, group=linking, **keywords)

    linking = p.add_argument_group(f"--benchmark {ASSOCIATION}: how well do embeddings alone link given boxes?")
    link("--embeddings", "embeddings", metavar="WHAT")
    link("--weights", "weights", metavar="URL", help="checkpoint of the model, e.g. RUN/final/model.safetensors")
    link("--against", "against", metavar="WHAT")
    link("--against-weights", "against_weights", metavar="URL")
    link("--long-side", "long_side")
    link("--stride", "strides", help="every Nth frame (default 10)")
    link("--gaps", "gaps", help="frame gaps of retrieval (default 5 20 50)")
    link("--dev", "dev", metavar="NAME")
    link("--threshold", "threshold")
    link("--against-threshold", "against_threshold")
    link("--seed", "seed")


def settings(options: Options) -> Settings:
    """Those of the benchmark that is asked for.

    Raises:
        InputError: an unknown key, a value that cannot be, or an option of another benchmark.
    """
    kind: type[Settings] = AssociationSettings if options.benchmark == ASSOCIATION else Choices
    values = dict(options.values)
    if options.frames is not None and not is_frame_range(options.frames) and _RANGE_ALIKE.fullmatch(options.frames):
        raise InputError(f"--frames {options.frames}: give FROM:TO, such as 301:600 or 301:")
    if options.frames is not None and is_frame_range(options.frames):
        if kind is AssociationSettings:
            raise InputError(f"--frames {options.frames}: --benchmark {ASSOCIATION} takes all frames; see --stride")
        values["frames"] = options.frames
    if kind is AssociationSettings:
        if options.workers is not None:
            raise InputError(f"--benchmark {ASSOCIATION} runs in one process: leave out --workers")
        values |= {name: value for name, value in (("frames", pictures(options)),) if value is not None}
        # `--results` is what other benchmarks call the thing that is measured.
        if options.results and len(options.results) > 1:
            raise InputError(f"--benchmark {ASSOCIATION} measures one embedding; a second one is --against")
        values.setdefault("embeddings", options.results[0] if options.results else None)
        if values["embeddings"] is None:
            raise InputError(f"--benchmark {ASSOCIATION} needs --embeddings: a model, hsv, a file or module:callable")
    for name in values:
        other = Choices if kind is AssociationSettings else AssociationSettings
        if name in other.model_fields and name not in kind.model_fields:
            raise InputError(f"{name!r} is no choice of --benchmark {options.benchmark}: leave it out")
    return build(kind, values, redact(options.config) if options.config else "command line")


def pictures(options: Options) -> str | None:
    """Root of the pictures; `--frames URL` is the older name of `--pictures`."""
    older: str | None = None if options.frames is None or is_frame_range(options.frames) else options.frames
    root: str | None = options.pictures or older
    return root


_RANGE_ALIKE = re.compile(r"[\d\s:,.+-]*")
# Else `301-600` would pass for the folder of the pictures, and all frames would be scored in silence.


def run(options: Options) -> None:
    """Evaluate, write what is asked for, print the table."""
    for option, target in (("--output", options.output), ("--html", options.html)):
        if target:  # an impossible one is found before any work is done
            target = canonical(target)
            check_output_folder(dirname(target), [basename(target)], option)
    choices = settings(options)
    if isinstance(choices, Choices):
        report = _benchmark(options, choices)
    else:
        from trackmill.pipeline.evaluation.benchmarks.association import evaluate_association

        assert isinstance(choices, AssociationSettings)
        report = evaluate_association(options.gt, choices)
    written = []
    if options.output:
        publish_bytes(options.output, report.as_json())
        written.append(f"report: {redact(options.output)}")
    if options.html:
        num_bytes = _write_page(report, options)
        written.append(f"page: {redact(options.html)} ({num_bytes / 1e6:.1f} MB), open it in a browser")
    _print(report)  # last: the reader of a pipe may have seen enough of it, and then nothing is lost
    for line in written:
        say(line)


def _benchmark(options: Options, choices: Choices) -> Report | Comparison:
    if not options.results:
        raise InputError(f"--benchmark {options.benchmark} needs --results: what the tracker wrote")
    results = named_results(options.results)
    lines: list[ProgressLine] = []

    def progress(done: int, total: int) -> None:
        if not lines:
            lines.append(ProgressLine(total, "evaluated", things="sequences"))
        lines[0](done - lines[0].done)

    if isinstance(results, str):
        report: Report | Comparison = evaluate(
            options.benchmark, options.gt, results, choices, progress, options.workers
        )
    else:
        report = compare(options.benchmark, options.gt, results, choices, progress, options.workers)
    for line in lines:
        line.close()
    return report


def _write_page(report: Report | Comparison, options: Options) -> int:
    """Write the HTML page; returns its length in bytes."""
    if isinstance(report, Comparison):
        return write_comparison_html(report, options.html)
    from trackmill.pipeline.evaluation.report.html import write_html

    return write_html(report, options.html, pictures(options))


def _print(report: Report | Comparison) -> None:
    if isinstance(report, Comparison):
        print_comparison(report)
    else:
        print_report(report)


JOB = Job(
    name="evaluate",
    description=__doc__,
    add_options=add_options,
    run=run,
    settings="trackmill.pipeline.evaluation.request:Options",
    resolve=settings,
    example="max_detections=300",
    extra="masa",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
