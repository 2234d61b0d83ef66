"""How an audit looks at negatives: what counts as kept, as the same box, as persistent."""

from __future__ import annotations

from pydantic import Field

from trackmill.schemas.config import Settings


class AuditSettings(Settings):
    """How negatives are looked at; nothing here changes them."""

    min_score: float = Field(0.0, ge=0, le=1, description="Negatives below it are not looked at.")
    nms_iou: float = Field(0.4, gt=0, le=1, description="IoU of the trainer's NMS over all classes (ScaleTrack: 0.4).")
    max_boxes: int = Field(100, ge=1, description="Negatives of a frame that the trainer keeps (ScaleTrack: 100).")
    min_iou: float = Field(0.5, gt=0, le=1, description="Least IoU that counts as the same box (ScaleTrack: 0.5).")
    near_iou: float = Field(
        0.3, gt=0, le=1, description="IoU with an annotated object from which on a negative may be a loose box of it."
    )
    persistent_frames: int = Field(3, ge=2, description="Stored frames in a row from which on a negative persists.")
    moving_lengths: float = Field(
        0.5, gt=0, description="Lengths of its box by which a negative that persists has to travel to count as moving."
    )
