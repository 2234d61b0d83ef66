"""How the association benchmark embeds boxes with a ScaleTrack model: it sees the frames of a sequence in order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.pipeline.evaluation.association.embeddings import Embedding
from trackmill.pipeline.evaluation.association.sequences import BoxSequence
from trackmill.schemas.errors import InputError


def scaletrack_embedding(network: nn.Module, device: torch.device) -> Embedding:
    """Every annotated frame of a sequence is given to the network, from the first to the last, and then forgotten."""
    assert isinstance(network, ScaleTrack)

    @torch.inference_mode()
    def of_sequence(sequence: BoxSequence) -> NDArray[np.float32]:
        shown, starts = np.unique(sequence.frames, return_index=True)
        rows = np.split(np.arange(len(sequence)), starts[1:])
        if sequence.pictures is None:
            raise InputError(f"{sequence.name}: this network looks at pixels, and the sequence has no pictures")
        pictures = sequence.pictures
        wanted = shown.tolist()
        images = (pictures[each] for each in wanted) if isinstance(pictures, Mapping) else pictures(wanted)
        stream, vectors = network.stream(), np.zeros((len(sequence), network.dimensions), np.float32)
        for own, image in zip(rows, images, strict=True):
            frame = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1).float() / 255
            boxes = torch.from_numpy(sequence.boxes[own].astype(np.float32)).to(device)
            vectors[own] = stream.step(frame, boxes).float().cpu().numpy()
        return vectors

    return Embedding(name="the network", of_sequence=of_sequence)
