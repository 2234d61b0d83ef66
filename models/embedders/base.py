"""The contract of an embedder: frames of a video and boxes in them in, one appearance embedding for each box out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes

if TYPE_CHECKING:
    import torch


class Embedder(ABC):
    """Describes the objects in boxes, so that a tracker can tell whether two of them are the same one.

    Whoever tracks calls `reset` before the first frame of a video, then `embed` with all its frames in their order, in
    batches of any size. An embedder may remember earlier frames of the video; how frames are cut into batches must not
    change its results.
    """

    @abstractmethod
    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        """Embeddings of each image's boxes.

        Args:
            images: B arrays (H, W, 3) uint8 RGB; sizes may differ from one to the next.
            boxes: B arrays (N_i, 4) float32 `xyxy` in pixels of each image; N_i may be 0. Boxes may leave the image.

        Returns:
            B arrays (N_i, D) float32, not necessarily of unit length; (0, 0) is allowed where there are no boxes. D is
            the same for all frames.
        """

    def reset(self) -> None:  # noqa: B027  most embedders remember nothing
        """Forget earlier frames: the next one is the first of another video."""


class EmbeddingNetwork(Protocol):
    """What `trackmill.models.embedders.scaled.ScaledEmbedder` needs of a network, such as `models.masa.model.Masa`.

    A network that remembers earlier frames has a method `reset()` too, which is called before each video. One that has
    to see every frame, also those without boxes, or that scales frames itself, has a method `embedder(scaling,
    device)`, which gives an `Embedder` to use in place of `ScaledEmbedder`; `scaling` is None where nobody asks for
    another size than the network's own. An attribute `default_tracker` names the rule that it was made for.
    """

    def embed(self, images: torch.Tensor, boxes: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Embeddings (N_i, D) of boxes (N_i, 4) in images (B, 3, H, W), float RGB 0..255."""


class SharedFeatures(Protocol):
    """A network's feature maps of a batch of frames, computed once for all who need them.

    Detectors and segmenters that work on a network's own maps take such an object when they are made.
    """

    def embedder(self) -> Embedder:
        """An embedder that reads these maps."""
