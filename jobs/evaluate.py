"""Compare tracks with ground truth: HOTA, MOTA, IDF1, TETA and Track mAP by the rules of each benchmark."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.evaluation.association.settings import AssociationSettings
from trackmill.pipeline.evaluation.benchmarks.association import evaluate_association
from trackmill.pipeline.evaluation.report.html import write_html
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.report.table import show
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.run import BENCHMARKS, evaluate
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import canonical
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.config import build

ASSOCIATION = "association"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="evaluate.py", description=__doc__)
    p.add_argument("--benchmark", required=True, choices=[*BENCHMARKS, ASSOCIATION], metavar="NAME", help=_names())
    p.add_argument("--gt", required=True, metavar="URL", help="ground truth: a folder, a flat folder, or one JSON")
    p.add_argument("--results", metavar="URL", help="what the tracker wrote: a folder of SEQUENCE.txt, or one JSON")
    p.add_argument("--out", metavar="FILE", help="write everything as JSON")
    p.add_argument("--html", metavar="FILE", help="write a page with plots and the worst moments, complete in itself")
    p.add_argument("--frames", metavar="URL", help="root of the pictures, for --html and for --embeddings")
    p.add_argument("--sequences", nargs="+", metavar="NAME", help="only these")
    p.add_argument("--iou", choices=["box", "mask"], help="compare boxes or masks (default: the benchmark's)")
    p.add_argument("--metrics", nargs="+", choices=["hota", "clear", "identity", "teta", "trackmap"], help="only these")

    rules = p.add_argument_group("choices that change numbers (each is named in the report)")
    rules.add_argument("--no-preprocess", action="store_true", help="keep predictions on distractors (MOT17, MOT20)")
    rules.add_argument(
        "--class-vote", action=argparse.BooleanOptionalAction, help="one class a track, by majority, before scoring"
    )
    rules.add_argument(
        "--bdd-rule", choices=["published", "corrected"], help="distractor categories of BDD100K (default published)"
    )
    rules.add_argument("--max-detections", type=int, metavar="N", help="keep the best N boxes of an image (TAO: 300)")
    rules.add_argument("--base-classes", metavar="FILE", help="names of the base classes, for ovtb and tao-ov")

    linking = p.add_argument_group(f"--benchmark {ASSOCIATION}: how well do embeddings alone link given boxes?")
    linking.add_argument(
        "--embeddings",
        metavar="WHAT",
        help="a variant of MASA, hsv, random, identity, a file, or package.module:callable",
    )
    linking.add_argument("--weights", metavar="URL", help="checkpoint of the variant, e.g. RUN/final/model.safetensors")
    linking.add_argument("--against", metavar="WHAT", help="a second one; prints paired 95 %% intervals between them")
    linking.add_argument("--against-weights", metavar="URL", help="checkpoint of the second")
    linking.add_argument("--long-side", type=int, metavar="N", help="pixels a variant sees frames at")
    linking.add_argument("--stride", nargs="+", type=int, metavar="N", help="every Nth frame (default 10)")
    linking.add_argument("--gaps", nargs="+", type=int, metavar="N", help="frame gaps of retrieval (default 5 20 50)")
    linking.add_argument("--dev", nargs="+", metavar="NAME", help="sequences on which the threshold is chosen")
    linking.add_argument("--threshold", type=float, metavar="X", help="least cosine of a link; not chosen then")
    linking.add_argument("--against-threshold", type=float, metavar="X", help="the same for --against")
    linking.add_argument("--seed", type=int, metavar="N", help="of the bootstrap")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status: 0 fine, 2 the user, a file or the storage made a mistake."""
    p = parser()
    options = p.parse_args(arguments)
    try:
        for target in filter(None, (options.out, options.html)):
            canonical(target)  # an impossible target is told before any work is done
        report = _association(p, options) if options.benchmark == ASSOCIATION else _benchmark(p, options)
        show(report)
        if options.out:
            publish_bytes(options.out, report.as_json())
            print(f"report: {redact(options.out)}")
        if options.html:
            num_bytes = write_html(report, options.html, options.frames)
            print(f"page: {redact(options.html)} ({num_bytes / 1e6:.1f} MB), open it in a browser")
        return 0
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {scrub(str(error))}", file=sys.stderr)
        return 2


def _benchmark(p: argparse.ArgumentParser, options: argparse.Namespace) -> Report:
    if not options.results:
        p.error(f"--benchmark {options.benchmark} needs --results")
    asked = {
        "iou": options.iou,
        "sequences": options.sequences,
        "metrics": options.metrics,
        "preprocess": False if options.no_preprocess else None,
        "class_vote": options.class_vote,
        "bdd_rule": options.bdd_rule,
        "max_detections": options.max_detections,
        "base_classes": options.base_classes,
    }
    lines: list[ProgressLine] = []

    def progress(done: int, total: int) -> None:
        if not lines:
            lines.append(ProgressLine(total, "evaluated", things="sequences"))
        lines[0](done - lines[0].done)

    settings = build(Options, _given(asked), "command line")
    report = evaluate(options.benchmark, options.gt, options.results, settings, progress)
    for line in lines:
        line.close()
    return report


def _association(p: argparse.ArgumentParser, options: argparse.Namespace) -> Report:
    embeddings = options.embeddings or options.results
    if not embeddings:
        p.error(f"--benchmark {ASSOCIATION} needs --embeddings: a variant of MASA, hsv, a file or module:callable")
    asked = {
        "embeddings": embeddings,
        "weights": options.weights,
        "against": options.against,
        "against_weights": options.against_weights,
        "long_side": options.long_side,
        "strides": options.stride,
        "gaps": options.gaps,
        "dev": options.dev,
        "threshold": options.threshold,
        "against_threshold": options.against_threshold,
        "sequences": options.sequences,
        "frames": options.frames,
        "seed": options.seed,
    }
    return evaluate_association(options.gt, build(AssociationSettings, _given(asked), "command line"))


def _given(asked: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in asked.items() if value is not None}


def _names() -> str:
    return ", ".join([*BENCHMARKS, ASSOCIATION])


if __name__ == "__main__":
    sys.exit(main())
