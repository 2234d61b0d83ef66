"""Detic as users call it: images of any size in, detections in their pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from trackmill.models.detic.network import DeticNetwork
from trackmill.schemas.detections import Detections


class Detic:
    """A network with a vocabulary."""

    network: DeticNetwork
    names: tuple[str, ...]

    def set_vocabulary(self, vocabulary: Any) -> None:
        """Swap the classes; the network stays."""
        raise NotImplementedError

    def detect(
        self,
        images: Sequence[NDArray[Any]],
        score_threshold: float = 0.3,
        resize: tuple[int, int] | None = (800, 1333),
        one_class_per_proposal: bool = False,
        *,
        nms_iou: float = 0.5,
        class_agnostic_nms: bool = False,
        max_boxes: int = 300,
    ) -> list[Detections]:
        """Detections of each image."""
        raise NotImplementedError
