"""Section `views` of a recipe. The defaults are the released training configuration of MASA."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from trackmill.schemas.config import Settings


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"the first should be the smaller: {list(limits)}")
    return limits


Factors = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ascending)]
"""Smallest and largest factor of a size."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A probability or a part of something."""


class ViewSettings(Settings):
    """How one picture becomes two views. Each is transformed independently, in this order."""

    size: int = Field(1024, ge=32, description="Side of the square that a view ends as; time grows with its square.")

    occluders: int = Field(
        0, ge=0, description="Patches of the other picture pasted over objects, at most; not in the released code."
    )

    rotate: float = Field(10.0, ge=0, le=180, description="Largest rotation in degrees, either way.")
    translate: Share = Field(0.1, description="Largest translation, as a part of the sides.")
    scale: Factors = Field((0.5, 1.5), description="Scale within the unchanged frame; uncovered pixels are `border`.")
    shear: float = Field(2.0, ge=0, lt=90, description="Largest shear in degrees, along either axis.")
    about_centre: bool = Field(
        False,
        description="Rotate and scale about the centre, which keeps more in the frame; released: the upper left.",
    )

    mixup: Share = Field(
        1.0,
        description="Probability that a second picture is blended in, half and half, with its objects (MixUp). Both "
        "views get the same. The paper ends without.",
    )
    mixup_scale: Factors = Field((0.8, 1.6), description="Size of that picture, as a factor of `size`.")

    hue: int = Field(5, ge=0, le=90, description="Largest shift of the hue, in steps of two degrees.")
    saturation: int = Field(30, ge=0, le=255, description="Largest shift of the saturation, of 255.")
    value: int = Field(30, ge=0, le=255, description="Largest shift of the brightness, of 255.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Largest relative change of the contrast.")
    blur: float = Field(0.0, ge=0, le=10, description="Largest sigma of a Gaussian blur, in pixels before scaling.")

    resize: Factors = Field(
        (0.1, 2.0),
        description="Large-scale jitter: the longer side becomes `size` times this. Wide ranges teach scales, but "
        "leave small pictures with few pixels.",
    )
    flip: Share = Field(0.5, description="Probability of a horizontal flip.")
    box_jitter: float = Field(
        0.0, ge=0, lt=0.5, description="Largest shift of each side of a box, as a part of the box, like a detector's."
    )

    clip: bool = Field(False, description="Clip boxes to the view; released: they may extend beyond it.")
    min_visible: Share = Field(0.0, description="Objects with less than this share of their box in view are dropped.")
    min_side: float = Field(1.0, ge=0, description="Boxes are dropped unless both sides exceed this many pixels.")
    border: int = Field(114, ge=0, le=255, description="Grey level of pixels that no picture covers.")
