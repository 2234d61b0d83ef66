"""How well the network tracks while it is trained: validation sequences from their pictures, no boxes given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import nn

from trackmill.pipeline.evaluation.benchmarks.mot_classes import RULES
from trackmill.pipeline.tasks.base import Evaluation
from trackmill.schemas.config import ConfigError, Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

if TYPE_CHECKING:
    from trackmill.pipeline.evaluation.tracking import TrackingBenchmark

SHOWN = ("HOTA", "MOTA", "IDF1", "DetA", "AssA", "IDSW", "Recall", "Precision")
"""What is kept of the benchmark's scores: ratios in percent; IDSW is a number of switches."""


class TrackingEvaluationSettings(Settings):
    """Section `evaluation`: HOTA, MOTA and IDF1 of what the network tracks by itself."""

    gt: str = Field(
        "", description="URL of ground truth in MOTChallenge's folders (NAME/gt/gt.txt); empty: nothing is measured."
    )
    pictures: str = Field("", description="URL of the pictures (NAME/img1 or NAME.mp4); empty: beside the truth.")
    benchmark: str = Field("mot17", description="Whose rules count: mot15, mot16, mot17, mot20, dancetrack, sportsmot.")
    every: int = Field(5000, gt=0, description="Steps between two measurements; there is one at the end, too.")
    sequences: tuple[str, ...] = Field((), description="Only these; empty: all.")
    frames: str = Field(
        "",
        description="Only these frames of each sequence, FROM:TO, counted from 1, both included: `:100` is the first "
        "hundred, `301:` the rest from 301 on, and `0.5:` the second half. Empty: all.",
    )
    gt_file: str = Field("gt.txt", description="Name of the file in each `gt` folder, such as gt_val_half.txt.")


def make_evaluation(settings: TrackingEvaluationSettings) -> Evaluation | None:
    """Tracking as training runs it; None where no ground truth is named.

    Raises:
        ConfigError: there is no such benchmark.
    """
    if settings.benchmark not in RULES:
        advice = nearest(settings.benchmark, RULES) or f"known: {', '.join(RULES)}"
        raise ConfigError(f"evaluation.benchmark: there is no benchmark {settings.benchmark!r}; {advice}")
    if not settings.gt:
        return None

    def check() -> None:
        try:
            _benchmark(settings).check()
        except (InputError, FileNotFoundError) as error:
            raise ConfigError(f"evaluation: {error}") from None

    def measure(network: nn.Module, device: torch.device) -> Mapping[str, float]:
        return tracking_scores(network, settings)

    return Evaluation(every=settings.every, measure=measure, check=check)


def tracking_scores(network: nn.Module, settings: TrackingEvaluationSettings) -> dict[str, float]:
    """Track the sequences with a network, and score the tracks.

    Args:
        network: an `IpMot` in evaluation mode, on its device.
        settings: which sequences.

    Returns:
        Those of `SHOWN` that are numbers: there may be nothing to divide by.

    Raises:
        ValueError, OSError: see `TrackingBenchmark.check`.
    """
    from trackmill.models.ipmot.model import IpMot
    from trackmill.models.ipmot.video_model import IpMotTracker

    assert isinstance(network, IpMot)
    metrics = _benchmark(settings).measure(IpMotTracker(network)).metrics
    return {name: float(value) for name in SHOWN if (value := metrics.get(name)) is not None}


def _benchmark(settings: TrackingEvaluationSettings) -> TrackingBenchmark:
    from trackmill.pipeline.evaluation.tracking import TrackingBenchmark

    return TrackingBenchmark(
        gt=settings.gt,
        pictures=settings.pictures,
        benchmark=settings.benchmark,
        sequences=settings.sequences,
        frames=settings.frames,
        gt_file=settings.gt_file,
    )
