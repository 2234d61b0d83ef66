"""How well a MASA model associates while it is trained: the association benchmark, told by section `evaluation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pydantic import Field
from torch import nn

from trackmill.models.detectors.frame_scaling import FrameScaling
from trackmill.pipeline.evaluation.association.measure import association_benchmark
from trackmill.pipeline.evaluation.association.model_embedding import network_embedding
from trackmill.pipeline.evaluation.association.sequences import BoxSequence
from trackmill.pipeline.evaluation.association.settings import AssociationSettings
from trackmill.pipeline.evaluation.benchmarks.association import association_sequences
from trackmill.schemas.config import Settings


class EvaluationSettings(Settings):
    """The association benchmark now and then: given boxes, hidden identities. Choose models by rank-1 and mAP."""

    gt: str = Field("", description="URL of MOT-style ground truth; empty: nothing is measured.")
    frames: str = Field("", description="URL of the pictures (NAME/img1 or NAME.mp4); empty: beside the ground truth.")
    every: int = Field(500, gt=0, description="Steps between two measurements; there is one at the end, too.")
    stride: int = Field(10, gt=0, description="Frames between two that are linked.")
    gaps: tuple[int, ...] = Field((5, 20, 50), description="Frames between query and gallery of retrieval.")
    sequences: tuple[str, ...] = Field((), description="Scored; empty: all that are not in `dev`.")
    dev: tuple[str, ...] = Field((), description="Sequences that the least cosine of a link is chosen on.")


Evaluate = Callable[[nn.Module, torch.device], Mapping[str, float]]


def evaluation_of(settings: EvaluationSettings) -> Evaluate | None:
    """A function (network in evaluation mode, its device) -> `AssA`, `IDF1`, `rank1@20`, `mAP@20`, ... in percent.

    None where the settings ask for nothing. Ground truth is read at the first call; pictures at every call.
    """
    if not settings.gt:
        return None
    asked = AssociationSettings(
        embeddings="the network",
        sequences=settings.sequences or None,
        dev=settings.dev or None,
        frames=settings.frames or None,
    )
    read: list[tuple[list[BoxSequence], list[BoxSequence] | None]] = []

    def evaluate(network: nn.Module, device: torch.device) -> Mapping[str, float]:
        if not read:
            read.append(association_sequences(settings.gt, asked))
        scored, dev = read[0]
        long_side, short_side = network.variant.resize
        embed = network_embedding(network, FrameScaling(long_side=long_side, short_side=short_side), device)
        report = association_benchmark(embed, scored, strides=(settings.stride,), gaps=settings.gaps, dev=dev)
        return {name: value for name, value in report.metrics.items() if value is not None}

    return evaluate
