"""How the association benchmark embeds boxes with a MASA model."""

from __future__ import annotations

import torch
from torch import nn

from trackmill.models.detectors.frame_scaling import FrameScaling
from trackmill.models.masa.model import Masa
from trackmill.pipeline.evaluation.association.embeddings import PixelEmbedding
from trackmill.pipeline.evaluation.association.model_embedding import network_embedding


def masa_embedding(network: nn.Module, device: torch.device) -> PixelEmbedding:
    """Each picture by itself, scaled as the released benchmarks do."""
    assert isinstance(network, Masa)
    long_side, short_side = network.variant.resize
    return network_embedding(network, FrameScaling(long_side=long_side, short_side=short_side), device)
