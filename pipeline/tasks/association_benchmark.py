"""How well a network associates while it is trained: the association benchmark, for every task that has one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from pydantic import Field
from torch import nn

from trackmill.pipeline.evaluation.association.embeddings import Embedding, PixelEmbedding
from trackmill.pipeline.evaluation.association.measure import association_benchmark
from trackmill.pipeline.evaluation.association.sequences import BoxSequence
from trackmill.pipeline.evaluation.association.settings import AssociationSettings
from trackmill.pipeline.evaluation.benchmarks.association import association_sequences
from trackmill.pipeline.tasks.base import Evaluation
from trackmill.schemas.config import ConfigError, Settings
from trackmill.schemas.errors import InputError


class EvaluationSettings(Settings):
    """The association benchmark now and then: given boxes, hidden identities. Choose models by rank-1 and mAP."""

    gt: str = Field("", description="URL of MOT-style ground truth; empty: nothing is measured.")
    frames: str = Field("", description="URL of the pictures (NAME/img1 or NAME.mp4); empty: beside the ground truth.")
    every: int = Field(500, gt=0, description="Steps between two measurements; there is one at the end, too.")
    stride: int = Field(10, gt=0, description="Frames between two that are linked.")
    gaps: tuple[int, ...] = Field((5, 20, 50), description="Frames between query and gallery of retrieval.")
    sequences: tuple[str, ...] = Field((), description="Scored; empty: all that are not in `dev`.")
    dev: tuple[str, ...] = Field((), description="Sequences that the least cosine of a link is chosen on.")


def make_evaluation(
    settings: EvaluationSettings, embedding_of: Callable[[nn.Module, torch.device], PixelEmbedding | Embedding]
) -> Evaluation | None:
    """The benchmark as training runs it: `AssA`, `IDF1`, `rank1@20`, `mAP@20`, ... in percent.

    None where no ground truth is named. That is read at the first measurement and kept; pictures are read at each.

    Args:
        settings: see there.
        embedding_of: (network in evaluation mode, its device) -> how it embeds boxes of pictures.
    """
    if not settings.gt:
        return None
    benchmark = AssociationSettings(
        embeddings="the network",
        sequences=settings.sequences or None,
        dev=settings.dev or None,
        frames=settings.frames or None,
    )

    @functools.cache
    def sequences() -> tuple[list[BoxSequence], list[BoxSequence] | None]:
        return association_sequences(settings.gt, benchmark)

    def measure(network: nn.Module, device: torch.device) -> Mapping[str, float]:
        scored, dev = sequences()
        embed = embedding_of(network, device)
        report = association_benchmark(embed, scored, strides=(settings.stride,), gaps=settings.gaps, dev=dev)
        return {name: value for name, value in report.metrics.items() if value is not None}

    def check() -> None:
        try:
            scored, dev = sequences()
        except (InputError, FileNotFoundError) as error:
            raise ConfigError(f"evaluation.gt: {error}") from None
        for sequence in {each.name: each for each in (*scored, *(dev or ()))}.values():
            try:
                if not callable(sequence.pictures):
                    raise InputError(f"{sequence.name}: there are no pictures beside it")
                for _ in sequence.pictures([int(sequence.frames.min())]):
                    pass
            except (InputError, FileNotFoundError) as error:
                raise ConfigError(f"evaluation.frames: {error}") from None

    return Evaluation(every=settings.every, measure=measure, check=check)
