"""Sections `clips` and `objects` of a recipe: which frames, which boxes, and how a clip is augmented.

The defaults are ScaleTrack's. What the paper leaves open is marked [D]: a decision made here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trackmill.pipeline.loader.negatives import NegativeUse
from trackmill.pipeline.loader.sidecar_rows import CHAINS, DETECTIONS
from trackmill.pipeline.loader.views.settings import Factors, Share
from trackmill.schemas.config import Settings


class ClipSettings(Settings):
    """How a stored clip becomes an example. One draw of the augmentation holds for all frames.

    Mining cuts a video into samples of `frames_per_clip` frames, and an example is drawn within one sample. So a chain
    is never longer than a sample, and the stride follows from the sample's frames, not from the whole video's: for
    longer chains or wider strides, mine with more frames a clip.
    """

    frames: int = Field(10, ge=2, le=1000, description="T, frames of an example; a clip with fewer gives what it has.")
    sampling: Literal["uniform", "random"] = Field(
        "uniform", description="uniform: a constant stride from a random start; random: T sorted frames, any distance."
    )
    span: int = Field(
        10,
        ge=1,
        description="uniform: the stride is the number of annotated frames over this, rounded down, and shorter where "
        "T frames would not fit. It does not depend on T, so longer chains cover more time [D].",
    )

    size: int = Field(518, ge=32, le=8192, description="S, side of the square that frames end as; 518 in the paper.")
    resize: Factors = Field(
        (0.1, 2.0), description="Large-scale jitter: the longer side becomes `size` times a factor in this range [D]."
    )
    flip: Share = Field(0.5, description="Probability of a horizontal flip.")

    clip: bool = Field(True, description="Cut boxes at the border of what is in view; if not, they may leave it.")
    min_visible: Share = Field(
        0.3, description="Boxes of which a smaller share of the area is in view are dropped from that frame [D]."
    )
    min_side: float = Field(
        8.0,
        ge=0,
        description="Boxes of which a side in view is below so many pixels of the square are dropped: too few pixels "
        "to tell whose they are [D].",
    )

    hue: int = Field(0, ge=0, le=90, description="Largest shift of the hue, in steps of two degrees; 0 in the paper.")
    saturation: int = Field(0, ge=0, le=255, description="Largest shift of the saturation, of 255; 0 in the paper.")
    value: int = Field(0, ge=0, le=255, description="Largest shift of the brightness, of 255; 0 in the paper.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Largest relative change of the contrast; 0 in the paper.")
    blur: float = Field(0.0, ge=0, le=10, description="Largest sigma of a Gaussian blur, in pixels of the square.")


class ClipSources(Settings):
    """Where boxes, identities and negatives of a clip come from."""

    masklets: bool = Field(True, description="Take annotated objects, where the data set has them.")
    chains: str = Field(
        "", description="Sidecar of chains: their identities, in the frames that have no masklets; empty: none."
    )
    maximum: int = Field(
        100,
        ge=1,
        description="Most objects of a frame, for memory; where there are more, whole identities are left out, drawn "
        "at random.",
    )
    negatives: NegativeUse = Field(NegativeUse(), description="Pseudo-negatives; none unless a sidecar is named.")

    def sidecars(self) -> dict[str, tuple[str, ...]]:
        """Columns that are read, by the sidecar's name."""
        named = ((self.negatives.sidecar, DETECTIONS), (self.chains, CHAINS))
        return {name: columns for name, columns in named if name}
