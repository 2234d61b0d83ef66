"""Pseudo-negatives of a frame as a trainer takes them: out of a sidecar, well scored, without doubles, the best.

    settings = NegativeUse(sidecar="negatives")             # one setting: which sidecar; empty: no negatives
    boxes = negatives_of(sample, frame, settings)           # (N, 4) float32, best first

Source: ScaleTrack, section 3.3 and appendix: score >= 0.3, NMS over all classes at 0.4, the 100 best. The sidecar holds
more than that, so that these may vary without mining again.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.loader.sidecar_rows import DETECTIONS, rows_with
from trackmill.schemas.boxes import Boxes, empty_boxes, nms
from trackmill.schemas.config import Settings
from trackmill.schemas.negatives import overlapping_objects


class NegativeUse(Settings):
    """Which pseudo-negatives are used."""

    sidecar: str = Field("", description="Sidecar that holds them, such as negatives; empty: none are used.")
    min_score: float = Field(0.3, ge=0, le=1, description="Those below it are left out; the paper's value is 0.3.")
    nms_iou: float = Field(
        0.4,
        gt=0,
        le=1,
        description="Of two that overlap more, of whatever class, the better stays; the paper's is 0.4.",
    )
    max_iou: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Those that overlap a known object so much or more are left out, should the sidecar hold any; the "
        "paper's is 0.5.",
    )
    max_boxes: int = Field(100, ge=1, description="Most of a frame, best first; the paper's is 100.")


def negatives_of(sample: StoredSample, frame: int, settings: NegativeUse, objects: Boxes | None = None) -> Boxes:
    """The pseudo-negatives of a frame: (N, 4) float32 xyxy in its pixels, best first; N may be 0.

    Args:
        sample: a stored sample.
        frame: index of the frame in it.
        settings: see `NegativeUse`. Any sidecar with boxes and scores will do, such as plain detections.
        objects: (G, 4) known objects of the frame, where these are more than the sidecar was made with, such as chains.

    Raises:
        SidecarError: the sidecar has no boxes or no scores.
        NoSidecar, OtherShards, BadShard: see `StoredSample.sidecar`.
    """
    if not settings.sidecar:
        return empty_boxes()
    rows = rows_with(sample, settings.sidecar, frame, DETECTIONS)
    enough = np.flatnonzero(rows["score"] >= np.float32(settings.min_score))
    if objects is not None:
        enough = enough[~overlapping_objects(rows["box"][enough], objects, settings.max_iou)]
    boxes: Boxes = rows["box"][enough]
    return boxes[nms(boxes, rows["score"][enough], settings.nms_iou)[: settings.max_boxes]]
