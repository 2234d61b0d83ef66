"""Every benchmark by its name, and the one call that evaluates it."""

from __future__ import annotations

from trackmill.pipeline.evaluation.benchmarks import bdd100k, mot, tao, youtubevis
from trackmill.pipeline.evaluation.report.report import Progress, Report
from trackmill.pipeline.evaluation.request import Options

BENCHMARKS = {
    "mot15": mot.evaluate,
    "mot17": mot.evaluate,
    "mot20": mot.evaluate,
    "dancetrack": mot.evaluate,
    "sportsmot": mot.evaluate,
    "tao": tao.evaluate,
    "tao-ov": tao.evaluate,
    "ovtb": tao.evaluate,
    "bdd100k-mot": bdd100k.evaluate,
    "bdd100k-mots": bdd100k.evaluate,
    "youtubevis": youtubevis.evaluate,
    "ovis": youtubevis.evaluate,
    "uvo": youtubevis.evaluate,
}


def evaluate(
    benchmark: str, gt: str, results: str, options: Options | None = None, progress: Progress | None = None
) -> Report:
    """Compare results with ground truth by a benchmark's rules.

    Args:
        benchmark: one of `BENCHMARKS`.
        gt, results: any fsspec URL: a folder in the benchmark's layout, a flat folder of `SEQUENCE.txt`, one JSON.
        options: choices that differ from the benchmark's own.
        progress: called with (videos done, videos in all).

    Raises:
        BadTracks: a file that cannot be evaluated; names it and the line or key.
        OSError: a file that cannot be read.
        KeyError: an unknown benchmark.
    """
    return BENCHMARKS[benchmark](benchmark, gt, results, options or Options(), progress)
