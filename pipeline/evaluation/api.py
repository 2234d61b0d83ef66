"""Evaluation from Python: `from trackmill import evaluate`."""

from __future__ import annotations

from os import PathLike
from typing import Any

from trackmill.pipeline.evaluation import run
from trackmill.pipeline.evaluation.report.report import Progress, Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.schemas.config import build


def evaluate(
    gt: str | PathLike[str],
    results: str | PathLike[str],
    benchmark: str = "mot17",
    *,
    progress: Progress | None = None,
    **choices: Any,
) -> Report:
    """Compare tracks with ground truth by the rules of a benchmark, as `trackmill evaluate` does.

    Example:
        >>> from trackmill import evaluate
        >>> report = evaluate("MOT17/train", "my_tracker/")  # doctest: +SKIP
        >>> report.metrics["HOTA"], report.sequences["MOT17-02-FRCNN"]["IDSW"]  # doctest: +SKIP

    Args:
        gt: path or URL of the ground truth: a folder in the benchmark's layout, a flat folder of `SEQUENCE.txt`, a zip
            of it, or one JSON.
        results: what the tracker wrote, laid out in one of these ways.
        benchmark: `mot15`, `mot17`, `mot20`, `dancetrack`, `sportsmot`, `tao`, `tao-ov`, `ovtb`, `bdd100k-mot`,
            `bdd100k-mots`, `youtubevis`, `ovis` or `uvo`.
        progress: called with (videos done, videos in all).
        choices: fields of `trackmill.pipeline.evaluation.request.Options`, such as `sequences=("MOT17-02-FRCNN",)` or
            `max_detections=300`; the report names each that differs from the benchmark's protocol.

    Returns:
        The scores. `metrics` holds the totals by name, `sequences` and `classes` a row of the same names each. Ratios
        are percent, counts are integers, None stands where there is nothing to divide by. `as_json()` gives it all.

    Raises:
        InputError: an unknown benchmark or choice (names the nearest), or a file that cannot be evaluated (names file
            and line or key). It is a `ValueError`.
        OSError: a file that cannot be read.
    """
    return run.evaluate(benchmark, str(gt), str(results), build(Options, choices, "evaluate"), progress)
