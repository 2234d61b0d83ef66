"""The settings of chains: whose boxes are linked, by which rule, and what is looked at for it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trackmill.pipeline.shots.cuts import Cuts
from trackmill.pipeline.sidecars.chains.source_frames import SourceSettings
from trackmill.pipeline.sidecars.producers.detections import DetectionSettings

PROPOSALS, DETECTIONS, SIDECAR = "proposals", "detections", "sidecar:"
"""What `boxes` may say, the last one before the name of a sidecar whose name is one of the others."""


class VideoChainSettings(DetectionSettings):
    """Whose boxes are linked, by which rule, and what is looked at for it."""

    boxes: str = Field(
        DETECTIONS,
        min_length=1,
        description="detections: what `detector` finds now, in the frames in between too; proposals: those that are "
        "stored with the sample; or the name of another sidecar that has a column `box` (sidecar:NAME for any name).",
    )
    detector: str = Field(
        "ssdlite-person",
        description="What `trackmill track --detections` takes: ssdlite-person, detic, torchvision:NAME, hf:FOLDER, "
        "file:URL, my_package.my_module:Class.",
    )
    min_score: float = Field(0.3, ge=0, le=1, description="Boxes below it are left out before anything is linked.")
    max_boxes: int = Field(300, ge=1, description="Most boxes of a frame that are linked, best first.")
    nms_iou: float = Field(
        0.6,
        gt=0,
        le=1,
        description="Of boxes of a frame that overlap more, of whatever class, the best one is linked: a second box of "
        "one object would be a second best match, and end its chain; 1: all.",
    )
    overlap: Literal["box", "mask"] = Field(
        "box", description="What IoU is taken of; masks only of proposals that are stored with them."
    )
    min_iou: float = Field(
        0.5, gt=0, le=1, description="Least IoU of a link; lower follows faster objects and makes more false links."
    )
    margin: float = Field(
        0.2,
        ge=0,
        le=1,
        description="By how much the best match must be better than the second best, for both boxes; higher ends more "
        "chains where objects meet, and confuses fewer.",
    )
    bridge: int = Field(0, ge=0, le=5, description="Frames in which the box of a chain may be missing.")
    min_length: int = Field(2, ge=1, description="Chains in fewer stored frames are left out.")
    cuts: Cuts = Field(
        "auto",
        description="How cuts between shots are found: transnet (extra `shots`), histogram, none; auto: transnet where "
        "it is installed.",
    )
    native: Literal["auto", "required", "never"] = Field(
        "auto",
        description="Frames between the stored ones: auto looks at them where the source is at hand, required "
        "quarantines a sample whose source is not, never links stored frames alone.",
    )
    link_fps: float = Field(
        0, ge=0, description="Frames a second that are enough: of a faster video not every frame is looked at; 0: all."
    )
    source: SourceSettings = SourceSettings()


def shown_boxes(boxes: str) -> str:
    """What `boxes` says, with `sidecar:` before the name of a sidecar."""
    return boxes if boxes == PROPOSALS or boxes.startswith(SIDECAR) else f"{SIDECAR}{boxes}"
