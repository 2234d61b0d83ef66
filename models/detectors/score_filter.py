"""Any detector without its weak detections, for detectors that have no such setting themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trackmill.models.detectors.base import Detector
from trackmill.schemas.detections import Detections


class ScoreFilter(Detector):
    """Leaves out detections below a score.

    Args:
        detector: whose detections.
        min_score: what remains has at least this score.
    """

    def __init__(self, detector: Detector, min_score: float) -> None:
        self._detector, self._min_score = detector, min_score
        self.names, self.category_ids = detector.names, detector.category_ids

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`."""
        return [each.select(each.scores >= self._min_score) for each in self._detector.detect(images, frames)]
