"""Every setting of the demonstration: `--set key=value` of jobs/demo.py."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trackmill.schemas.config import Settings

STAGE_NAMES = ("mine", "chains", "train", "track", "evaluate", "report")
"""In the order in which they are done; see `trackmill.pipeline.demo.stages`."""


class DemoSettings(Settings):
    """The defaults take some minutes on two CPU cores."""

    seed: int = Field(0, ge=0, description="Of training, of the camera's ways and of the imperfect detections.")
    executor: Literal["ray", "inline"] = Field("ray", description="Of mining.")
    recipe: Literal["scaletrack_lite0", "masa_lite0"] = Field(
        "scaletrack_lite0", description="What is trained, and tracks: a recipe of jobs/train.py for CPUs."
    )
    mine: tuple[str, ...] = Field(
        (), description="Further settings of jobs/mine_proposals.py, as its --set takes them."
    )
    chains: tuple[str, ...] = Field((), description="Further settings of jobs/mine_chains.py, as its --set takes them.")
    steps: int = Field(30, ge=1, description="Training steps; the recipe's own schedule has more.")
    train: tuple[str, ...] = Field((), description="Further settings of jobs/train.py, as its --set takes them.")
    photographs: tuple[str, ...] = Field(
        ("astronaut", "coffee", "hubble_deep_field", "motorcycle_left"),
        min_length=1,
        description="Packaged photographs that the camera looks at. They are kept out of mining and training.",
    )
    frames: int = Field(60, ge=2, description="Frames of each of these sequences, 10 a second.")
    video_frames: int = Field(
        110, ge=20, description="Frames of the real video that are tracked, every second one; before 16 nobody comes."
    )
    long_side: int = Field(320, ge=32, description="Pixels at which the model looks at frames; the camera's own width.")
