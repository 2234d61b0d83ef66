"""All benchmarks by name, and the function that evaluates one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TypeAlias

from trackmill.pipeline.evaluation.report.report import Progress, Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import require_known

Evaluate: TypeAlias = Callable[[str, str, str, Options, Progress | None, int | None], Report]

_PACKAGE = "trackmill.pipeline.evaluation.benchmarks"
BENCHMARKS = {
    "mot15": "mot",
    "mot16": "mot",
    "mot17": "mot",
    "mot20": "mot",
    "dancetrack": "mot",
    "sportsmot": "mot",
    "tao": "tao",
    "tao-ov": "tao",
    "ovtb": "tao",
    "bdd100k-mot": "bdd100k",
    "bdd100k-mots": "bdd100k",
    "youtubevis": "youtubevis",
    "ovis": "youtubevis",
    "uvo": "youtubevis",
}
"""Module of `pipeline/evaluation/benchmarks` that evaluates each benchmark; imported on first use, since some take a
second to import."""


def evaluate(
    benchmark: str,
    gt: str,
    results: str,
    options: Options | None = None,
    progress: Progress | None = None,
    workers: int | None = 1,
) -> Report:
    """Compare results with ground truth by a benchmark's rules.

    Args:
        benchmark: one of `BENCHMARKS`.
        gt, results: any fsspec URL: a folder in the benchmark's layout, a flat folder of `SEQUENCE.txt`, one JSON.
        options: see `Options`; None takes the benchmark's own.
        progress: called with (videos done, videos in all).
        workers: processes that evaluate sequences, see `results_in_order`; None starts some where that pays. The
            numbers do not depend on it.

    Raises:
        BadTracks: a file that cannot be evaluated; names it and the line or key.
        OSError: a file that cannot be read.
        InputError: an unknown benchmark (names the nearest), or an option that another benchmark has.
        JobError: a process died.
    """
    module = importlib.import_module(f"{_PACKAGE}.{BENCHMARKS[require_known('benchmark', benchmark, BENCHMARKS)]}")
    call: Evaluate = module.evaluate
    chosen = options or Options()
    for name in chosen.model_dump(exclude_defaults=True):
        if name not in module.OPTIONS:
            apply = ", ".join(sorted(module.OPTIONS))
            raise InputError(f"{name} is no option of benchmark {benchmark}: leave it out; those that apply: {apply}")
    return call(benchmark, gt, results, chosen, progress, workers)
