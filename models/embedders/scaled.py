"""A network as an embedder: frames scaled, batched and cut into runs of one size for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from trackmill.models.detectors.frame_scaling import FrameScaling, runs_of_one_size
from trackmill.models.embedders.base import Embedder, EmbeddingNetwork
from trackmill.schemas.boxes import Boxes


class ScaledEmbedder(Embedder):
    """Has a network embed the boxes of uint8 frames.

    Boxes are handed over as they are, as in the released code: those that leave the frame, or lie outside it, are
    neither cut nor dropped; what the network pools there is the border's features and zeros.

    Args:
        network: see `EmbeddingNetwork`; in evaluation mode.
        scaling: the size at which the network sees the frames.
        device: where the network lies.
    """

    def __init__(self, network: EmbeddingNetwork, scaling: FrameScaling, device: torch.device | str = "cpu") -> None:
        self._network, self._scaling, self._device = network, scaling, torch.device(device)

    def reset(self) -> None:
        """See `Embedder.reset`; passed on to a network that has a `reset`."""
        forget = getattr(self._network, "reset", None)
        if forget is not None:
            forget()

    @torch.inference_mode()
    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        """See `Embedder.embed`.

        Neighbours of one size share a batch. An image without boxes does not go through the network, so one that needs
        every frame wants an `Embedder` of its own.
        """
        embeddings = [np.zeros((0, 0), np.float32) for _ in images]
        filled = [i for i, each in enumerate(boxes) if len(each)]
        for run in runs_of_one_size([images[i] for i in filled]):
            places = filled[run]
            factors = self._scaling.factors(*images[places[0]].shape[:2])
            batch = self._scaling.scale([images[i] for i in places], self._device)  # (B, 3, h, w)
            scaled = [torch.from_numpy(boxes[i] * factors).to(self._device) for i in places]
            embedded = self._network.embed(batch, scaled)
            counts = [len(each) for each in embedded]
            # One transfer for the whole batch.
            together = torch.cat(list(embedded)).float().cpu().numpy()
            for i, rows in zip(places, np.split(together, np.cumsum(counts)[:-1]), strict=True):
                embeddings[i] = rows
        return embeddings
