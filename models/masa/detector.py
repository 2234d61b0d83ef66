"""MASA's own proposal head as a detector: class-agnostic objects, without any other network (paper, section 3.2.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from trackmill.models.detectors.base import Detector
from trackmill.models.masa.frame_features import FrameFeatures
from trackmill.models.masa.rpn_inference import DetectionSettings
from trackmill.schemas.detections import Detections

SEGMENT_EVERYTHING = DetectionSettings(kept=300)
"""The paper's, appendix on fast proposals: 300 boxes, NMS 0.5. The least score is the released one."""


class MasaProposals(Detector):
    """Objects of one class by the RPN and the object prior head.

    Args:
        features: the model and its maps; shared with whoever embeds or segments the same frames.
        settings: how many boxes, and which.
    """

    names = ("object",)
    category_ids = (1,)

    def __init__(self, features: FrameFeatures, settings: DetectionSettings = SEGMENT_EVERYTHING) -> None:
        self._features, self._settings = features, settings

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; boxes lie inside the image, best first."""
        found = []
        for run in self._features.of(images):
            proposed = self._features.model.propose_levels(run.levels, *run.scaled, detections=self._settings)
            height, width = run.size
            for boxes, scores in proposed:
                back = boxes.float().cpu().numpy() / run.factors
                # The scaled border, divided by a rounded factor, may come out a hair beyond the image's.
                back = np.clip(back, 0, np.array([width, height, width, height], np.float32))
                found.append(
                    Detections(
                        boxes=back.astype(np.float32),
                        scores=scores.float().cpu().numpy(),
                        labels=np.zeros(len(back), np.int64),
                        names=self.names,
                    )
                )
        return found
