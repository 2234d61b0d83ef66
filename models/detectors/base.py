"""The contract of a detector: a batch of uint8 RGB images in, one `Detections` each out, in pixels of each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.detections import Detections


class Detector(ABC):
    """Finds objects. It is deterministic, and an image gives the same detections in whatever batch it comes."""

    names: tuple[str, ...]
    """Name of each label that it can give."""

    category_ids: tuple[int, ...]
    """For files: the id of each label's category, in the data set that the detector speaks of."""

    @abstractmethod
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """Detections of each image.

        Args:
            images: any number of (H, W, 3) uint8 RGB arrays of any sizes.
            frames: number of each image in its video, from 0. Only detections that come from a file look at it;
                without it, images are taken to follow those of the last call.

        Returns:
            One `Detections` an image, in order, whose `names` are the detector's.
        """
