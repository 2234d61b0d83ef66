"""Evaluation from Python: `from trackmill import evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, overload

from trackmill.pipeline.evaluation import run
from trackmill.pipeline.evaluation.compare import compare
from trackmill.pipeline.evaluation.report.comparison import Comparison
from trackmill.pipeline.evaluation.report.report import Progress, Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.schemas.config import build


@overload
def evaluate(
    gt: str | PathLike[str],
    results: str | PathLike[str],
    benchmark: str = "mot17",
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    **choices: Any,
) -> Report: ...


@overload
def evaluate(
    gt: str | PathLike[str],
    results: Mapping[str, str | PathLike[str]],
    benchmark: str = "mot17",
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    **choices: Any,
) -> Comparison: ...


def evaluate(
    gt: str | PathLike[str],
    results: str | PathLike[str] | Mapping[str, str | PathLike[str]],
    benchmark: str = "mot17",
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    **choices: Any,
) -> Report | Comparison:
    """Compare tracks with ground truth by the rules of a benchmark, as `trackmill evaluate` does.

    Example:
        >>> from trackmill import evaluate
        >>> report = evaluate("MOT17/train", "my_tracker/")  # doctest: +SKIP
        >>> report.metrics["HOTA"], report.sequences["MOT17-02-FRCNN"]["IDSW"]  # doctest: +SKIP
        >>> both = evaluate("MOT17/train", {"mine": "my_tracker/", "theirs": "sort/"})  # doctest: +SKIP
        >>> both.trackers["mine"].metrics["HOTA"]  # doctest: +SKIP

    Args:
        gt: path or URL of the ground truth: a folder in the benchmark's layout, a flat folder of `SEQUENCE.txt`, a zip
            of it, or one JSON.
        results: what the tracker wrote, laid out in one of these ways; or that of several trackers, by name.
        benchmark: `mot15`, `mot16`, `mot17`, `mot20`, `dancetrack`, `sportsmot`, `tao`, `tao-ov`, `ovtb`,
            `bdd100k-mot`, `bdd100k-mots`, `youtubevis`, `ovis` or `uvo`.
        progress: called with (videos done, videos in all).
        workers: processes that evaluate sequences; None starts one a free processor where that pays. The numbers do
            not depend on it.
        choices: fields of `trackmill.pipeline.evaluation.request.Options`, such as `sequences=("MOT17-02-FRCNN",)` or
            `max_detections=300`; the report names each that differs from the benchmark's protocol.

    Returns:
        The scores. `metrics` holds the totals by name, `sequences` and `classes` a row of the same names each. Ratios
        are percent (FAF is a number of boxes), counts are integers, None stands where there is nothing to divide by.
        `as_json()` gives it all. Of several trackers a `Comparison`, whose `trackers` are such reports by name.

    Raises:
        InputError: an unknown benchmark or choice (names the nearest), or a file that cannot be evaluated (names file
            and line or key). It is a `ValueError`.
        OSError: a file that cannot be read.
    """
    options = build(Options, choices, "evaluate")
    if isinstance(results, Mapping):
        paths = {name: str(path) for name, path in results.items()}
        return compare(benchmark, str(gt), paths, options, progress, workers)
    return run.evaluate(benchmark, str(gt), str(results), options, progress, workers)
