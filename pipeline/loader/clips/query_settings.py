"""Sections `clips` and `objects` of a recipe for tracking by query: which frames, which boxes, which augmentation.

The defaults are IP-MOT's for MOT17 (section 4.2 of the paper, and MeMOTR's public code, whose augmentation it takes).
What the paper leaves open is marked [D]: a decision made here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from trackmill.pipeline.loader.clips.settings import ClipSources
from trackmill.pipeline.loader.sidecar_rows import CHAINS
from trackmill.pipeline.loader.views.settings import Share
from trackmill.schemas.config import Settings

_Side = Annotated[int, Field(ge=16, le=8192)]
_Whole = Annotated[int, Field(ge=0)]
MOST_FRAMES = 64
"""Of an example; each is decoded, and all lie in memory side by side."""


class QueryClipSettings(Settings):
    """How a stored sample becomes T frames. One draw of the augmentation holds for all of them.

    Mining cuts a video into samples of `frames_per_clip` frames, and an example is drawn within one sample: for long
    clips at wide intervals, mine with more frames a clip ((T - 1) * 10 + 1 of them hold every interval).
    """

    frames: tuple[tuple[_Whole, Annotated[int, Field(ge=1, le=MOST_FRAMES)]], ...] = Field(
        ((0, 2), (60, 3), (100, 4)),
        description="[[epoch, T], ...]: clips have T frames from that epoch on, counted from 0; [[0, 2]] is 2 for all "
        "of them. A sample with fewer frames gives what it has.",
    )
    per_frame: bool = Field(
        True,
        description="An epoch draws as many clips from a video's sample as it stores frames, since MeMOTR's begins one "
        "at every frame; false: one. Of a picture it draws one.",
    )
    interval: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (1, 10),
        description="Frames of the source video from one frame of the clip to the next, at least and at most: one draw "
        "a clip, uniform over those that the sample stores, and shorter where the clip would pass its end.",
    )
    shift: _Whole = Field(
        50,
        description="Pictures: each of the T copies shows the picture moved by up to so many pixels, either way along "
        "both axes, from the one before [D: the view moves inside of the picture, so nothing black comes in].",
    )

    flip: Share = Field(0.5, description="Probability of a horizontal flip.")
    resize: tuple[_Side, ...] = Field(
        tuple(range(608, 993, 32)),
        description="Shorter sides in pixels, of which one is drawn; empty: frames keep the size that they have.",
    )
    longest: _Side = Field(1536, description="The longer side is at most so many pixels; the shorter then gives way.")
    crop_share: Share = Field(
        0.5, description="Probability that frames are resized to `before_crop` and cropped, before `resize`."
    )
    before_crop: tuple[_Side, ...] = Field(
        (400, 500, 600), description="Shorter sides before the crop; DanceTrack: 800, 1000, 1200. Empty: as they are."
    )
    crop: tuple[_Side, _Side] = Field(
        (384, 600),
        description="Least and greatest side of the crop, each side drawn by itself; DanceTrack: 800, 1200. A side of "
        "a frame that is smaller stays whole.",
    )
    clip: bool = Field(
        False,
        description="Cut boxes at the border of what is in view, as MeMOTR's released settings do; if not, they leave "
        "it as people do. Either way a box is dropped only where nothing of it is in view [D].",
    )

    hue: int = Field(5, ge=0, le=90, description="Largest shift of the hue, in steps of two degrees.")
    saturation: int = Field(30, ge=0, le=255, description="Largest shift of the saturation, of 255.")
    value: int = Field(30, ge=0, le=255, description="Largest shift of the brightness, of 255.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Largest relative change of the contrast.")
    blur: float = Field(0.0, ge=0, le=10, description="Largest sigma of a Gaussian blur, in pixels.")

    @field_validator("frames")
    @classmethod
    def _growth(cls, frames: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if not frames or frames[0][0] != 0:
            raise ValueError("should begin with epoch 0, as in [[0, 2], [60, 3]]")
        if any(later <= epoch for (epoch, _), (later, _) in pairwise(frames)):
            raise ValueError("epochs should rise, as in [[0, 2], [60, 3]]")
        return frames

    @model_validator(mode="after")
    def _ascending(self) -> QueryClipSettings:
        for name in ("interval", "crop"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name} = [{least}, {most}]: the first should be the smaller")
        return self

    def frames_at(self, epoch: int) -> int:
        """T in an epoch, counted from 0."""
        return [count for begin, count in self.frames if begin <= epoch][-1]


class QuerySources(Settings):
    """Where boxes and identities come from."""

    masklets: bool = Field(True, description="Take annotated objects, where the data set has them.")
    chains: str = Field(
        "", description="Sidecar of chains: their identities, in the frames that have no masklets; empty: none."
    )
    static_identities: bool = Field(
        False,
        description="Whether the boxes of pictures are identities that last (TrackBook entries of their own), beyond "
        "the example [D].",
    )

    def sidecars(self) -> dict[str, tuple[str, ...]]:
        """Columns that are read, by the sidecar's name."""
        return {self.chains: CHAINS} if self.chains else {}

    def clip_sources(self) -> ClipSources:
        """The same for what is shared with other tasks."""
        return ClipSources(masklets=self.masklets, chains=self.chains)
