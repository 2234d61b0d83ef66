"""What a recipe says about views: section `views`. Defaults: the released training configuration of MASA."""

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
    """How one picture becomes two. Each is changed on its own, in this order; a range of no width is no change."""

    size: int = Field(1024, ge=32, description="Side of the square that a view ends as; time grows with its square.")

    occluders: int = Field(
        0, ge=0, description="Patches of the other picture pasted over objects, at most; not in the released code."
    )

    rotate: float = Field(10.0, ge=0, le=180, description="Turned by so many degrees at most, either way.")
    translate: Share = Field(0.1, description="Shifted by this part of the sides at most.")
    scale: Factors = Field((0.5, 1.5), description="Scaled within the unchanged frame; what is missing is `border`.")
    shear: float = Field(2.0, ge=0, lt=90, description="Slanted by so many degrees at most, along either axis.")
    about_centre: bool = Field(
        False,
        description="Turn and scale about the centre, which keeps more in the frame; released: about the upper left.",
    )

    mixup: Share = Field(
        1.0,
        description="Chance that a second picture is blended in, half and half, with its objects (MixUp). Both views "
        "get the same. The paper ends without.",
    )
    mixup_scale: Factors = Field((0.8, 1.6), description="Size of that picture, as a factor of `size`.")

    hue: int = Field(5, ge=0, le=90, description="Shift of the hue at most, in steps of two degrees.")
    saturation: int = Field(30, ge=0, le=255, description="Shift of the saturation at most, of 255.")
    value: int = Field(30, ge=0, le=255, description="Shift of the brightness at most, of 255.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Change of the contrast at most, 0.1 being a tenth.")
    blur: float = Field(0.0, ge=0, le=10, description="Largest deviation of a Gaussian blur, in pixels before scaling.")

    resize: Factors = Field(
        (0.1, 2.0),
        description="Large-scale jitter: the longer side becomes `size` times this. Wide ranges teach scales, but "
        "leave small pictures with few pixels.",
    )
    flip: Share = Field(0.5, description="Chance of mirroring.")
    box_jitter: float = Field(
        0.0, ge=0, lt=0.5, description="Every side of a box moves by this part of the box at most, like a detector's."
    )

    clip: bool = Field(False, description="Cut boxes at the border of the view; released: they may leave it.")
    min_visible: Share = Field(
        0.0, description="Objects of which less than this part of the box is in view are left out."
    )
    min_side: float = Field(1.0, ge=0, description="Boxes of which a side is not above so many pixels are left out.")
    border: int = Field(114, ge=0, le=255, description="Grey level of what no picture covers.")
