"""The contract of a box segmenter: frames and boxes in them in, the mask of what each box holds out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes
from trackmill.schemas.masks import CroppedMask


class BoxSegmenter(ABC):
    """Cuts objects out of their boxes. It is deterministic, and batches do not change its results."""

    @abstractmethod
    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]
    ) -> list[tuple[CroppedMask | None, ...]]:
        """The mask of each box.

        Args:
            images: B arrays (H, W, 3) uint8 RGB.
            boxes: B arrays (N_i, 4) float32 `xyxy` in pixels of each image.

        Returns:
            N_i masks of each image, in its pixels; None where no pixel is left.
        """
