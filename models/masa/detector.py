"""MASA's own proposal head as a detector: class-agnostic objects, without any other network (paper, section 3.2.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trackmill.models.detectors.base import Detector
from trackmill.models.detectors.options import DetectorOptions
from trackmill.models.masa.frame_features import FrameFeatures
from trackmill.models.masa.model import Masa
from trackmill.models.masa.rpn_inference import DetectionSettings
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError

log = logging.getLogger("trackmill")


class MasaProposalSettings(DetectorOptions):
    """MASA's own proposal head as a detector. Defaults: the paper's section 3.2.3 and appendix (segment everything)."""

    max_boxes: int = Field(300, ge=1, description="Boxes a frame. Released where no masks are asked for: 50.")
    nms_iou: float = Field(0.5, ge=0, le=1, description="Of two boxes that overlap more, the better one stays.")
    min_score: float = Field(0.02, ge=0, le=1, description="What a score must exceed; as released.")


SEGMENT_EVERYTHING = DetectionSettings(kept=300)
"""The paper's, appendix on fast proposals: 300 boxes, NMS 0.5. The least score is the released one."""


def never_trained(model: Masa) -> bool:
    """Whether the proposal and object heads are as they were drawn: all of their offsets are 0 then.

    Training for association alone leaves them so (`loss.detection = false`, as for masa_lite0).
    """
    heads = ("rpn_head.", "roi_head.")
    offsets = [value for name, value in model.named_parameters() if name.startswith(heads) and name.endswith(".bias")]
    return not any(bool(value.any()) for value in offsets)


class MasaProposals(Detector):
    """Objects of one class by the RPN and the object prior head.

    Args:
        features: the model and its maps; shared with whoever embeds or segments the same frames.
        settings: how many boxes, and which.
    """

    Config = MasaProposalSettings
    # Before the object head, in this order; classes are for whoever builds it to filter, and there is one.
    applies = frozenset({"min_score", "nms_iou", "class_agnostic_nms", "max_boxes"})

    names = ("object",)
    category_ids = (1,)

    def __init__(self, features: FrameFeatures, settings: DetectionSettings = SEGMENT_EVERYTHING) -> None:
        self._features, self._settings = features, settings

    @classmethod
    def build(
        cls,
        config: MasaProposalSettings,
        tensors: Mapping[str, torch.Tensor] | None = None,
        device: torch.device | str = "cpu",
        *,
        features: FrameFeatures,
    ) -> MasaProposals:
        """What the registry builds; see `trackmill.models.registry`.

        Raises:
            ValueError: tensors: it has no weights but the model's; or the model has no head that proposes objects.
        """
        if tensors is not None:
            raise InputError("the detector masa is the head of the model that tracks: it takes no weights of its own")
        if not hasattr(features.model, "propose_levels"):
            raise InputError(
                f"{features.model.variant.name} has no proposal head for masa to find objects with: give --detections "
                "a file or another detector, such as ssdlite-person"
            )
        settings = DetectionSettings(
            score_threshold=config.min_score, iou_threshold=config.nms_iou, kept=config.max_boxes
        )
        if never_trained(features.model):
            log.warning(
                "%s: its proposal head was never trained, so its objects are by chance: give --detections a file or "
                "another detector",
                features.model.variant.name,
            )
        return cls(features, settings)

    @classmethod
    def recognise(cls, tensors: Mapping[str, torch.Tensor]) -> str | None:
        """None: it has no checkpoint of its own."""
        return None

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; boxes lie inside the image, best first."""
        detections = []
        for run in self._features.of(images):
            proposed = self._features.model.propose_levels(run.levels, *run.scaled, detections=self._settings)
            height, width = run.size
            for boxes, scores in proposed:
                back = boxes.float().cpu().numpy() / run.factors
                # The scaled border, divided by a rounded factor, may come out a hair beyond the image's.
                back = np.clip(back, 0, np.array([width, height, width, height], np.float32))
                detections.append(
                    Detections(
                        boxes=back.astype(np.float32),
                        scores=scores.float().cpu().numpy(),
                        labels=np.zeros(len(back), np.int64),
                        names=self.names,
                    )
                )
        return detections
