"""How the association benchmark embeds boxes with a ScaleTrack model: it sees the frames of a sequence in order."""

from __future__ import annotations

import torch
from torch import nn

from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.pipeline.evaluation.association.embeddings import Embedding
from trackmill.pipeline.evaluation.association.model_embedding import remembering_embedding


def scaletrack_embedding(network: nn.Module, device: torch.device) -> Embedding:
    """Every frame of a sequence is given to the network in order, as when it tracks, and then forgotten."""
    assert isinstance(network, ScaleTrack)
    return remembering_embedding(network, "the network")
