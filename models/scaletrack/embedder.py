"""ScaleTrack as an embedder of a tracker: uint8 frames of one video after another, of which it remembers the latest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trackmill.models.embedders.base import Embedder
from trackmill.models.scaletrack.stream import Network, Stream
from trackmill.models.scaletrack.variants import Variant
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.models.detectors.frame_scaling import FrameScaling


class StreamEmbedder(Embedder):
    """Embeds boxes of a video with the numbers of `ScaleTrack.forward`, and holds only the maps that it looks back at.

    Frames go through the network one by one, so results do not depend on batches, not even by rounding. Every frame
    goes through it, since later ones look at it, also one without boxes.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._stream = Stream(network)

    def reset(self) -> None:
        """See `Embedder.reset`."""
        self._stream.reset()

    @torch.inference_mode()
    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        """See `Embedder.embed`."""
        embeddings = []
        for image, each in zip(images, boxes, strict=True):
            if not len(each) and not self._network.variant.remembers:
                embeddings.append(np.zeros((0, 0), np.float32))
                continue
            pixels = torch.from_numpy(np.require(image, requirements=("C", "W"))).to(self._network.device)
            frame = pixels.permute(2, 0, 1).float() / 255  # (3, H, W)
            rows = self._stream.step(frame, torch.from_numpy(np.ascontiguousarray(each)))
            embeddings.append(rows.float().cpu().numpy())
        return embeddings


class OtherSide:
    """A network that reads squares of another side than it was trained with.

    Args:
        network: whose weights are used.
        side: in pixels; it is rounded up to what the backbone takes.
    """

    def __init__(self, network: Network, side: int) -> None:
        self._network, self.divisor = network, network.divisor
        self.variant: Variant = dataclasses.replace(network.variant, side=side + -side % self.divisor)

    @property
    def device(self) -> torch.device:
        """See `Network.device`."""
        return self._network.device

    def backbone_maps(self, frames: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
        """See `ScaleTrack.backbone_maps`."""
        return self._network.backbone_maps(frames, sizes)

    def encode_maps(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,
        frame_of_box: Tensor,
        sizes: Tensor | None = None,
        *,
        clips: int = 1,
        earlier: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """See `ScaleTrack.encode_maps`."""
        return self._network.encode_maps(maps, boxes, frame_of_box, sizes, clips=clips, earlier=earlier)


def stream_embedder(network: Network, scaling: FrameScaling | None = None) -> StreamEmbedder:
    """An embedder of a network.

    Args:
        network: in evaluation mode.
        scaling: at what size it looks at frames; None: its own.

    Raises:
        InputError: the size limits the shorter side too, which the network does not know.
    """
    if scaling is None:
        return StreamEmbedder(network)
    if scaling.short_side < scaling.long_side:
        raise InputError(
            f"size.short_side: {network.variant.name} reads frames in a square, whose side is size.long_side; leave "
            "size.short_side out"
        )
    return StreamEmbedder(OtherSide(network, scaling.long_side))
