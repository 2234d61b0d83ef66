"""Detectors without weights for tests: what they find depends on the pixels, and on nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from trackmill.models.detectors.base import Detector
from trackmill.schemas.detections import Detections, make_detections


class Windows(Detector):
    """Windows of three shapes all over the image, some over its border, each scored by how its brightness varies."""

    names = ("flat", "busy")
    category_ids = (0, 1)

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`."""
        return [self._windows(image) for image in images]

    def _windows(self, image: NDArray[np.uint8]) -> Detections:
        height, width = image.shape[:2]
        boxes, scores = [], []
        for tall, wide in ((height // 6, height // 6), (height // 2, height // 2), (height // 4, height // 10)):
            for y in range(-tall // 2, height, tall // 2):
                for x in range(-wide // 2, width, wide // 2):
                    inside = image[max(0, y) : y + tall, max(0, x) : x + wide]
                    boxes.append([x + 0.3, y - 0.7, x + wide - 0.1, y + tall])
                    scores.append(min(1.0, float(inside.std()) / 64) if inside.size else 0.0)
        labels = [int(score > 0.6) for score in scores]
        return make_detections(boxes, scores, labels, self.names)


class Refusing(Windows):
    """Fails on a frame whose upper left pixel has a level that it refuses."""

    refuses: ClassVar[set[tuple[int, ...]]] = set()

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`."""
        for image in images:
            if tuple(image[0, 0].tolist()) in self.refuses:
                raise ArithmeticError("this frame cannot be looked at")
        return super().detect(images, frames)


class Slow(Windows):
    """Takes as long for a batch as the environment says, so that it can be killed in the middle."""

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`."""
        time.sleep(float(os.environ.get("SLOW_DETECTOR_S", "0")))
        return super().detect(images, frames)
