"""The colours of the layers and of identities, the same in overlays, sheets, the viewer and tracked videos.

Colours of identities are a table and no formula. Steps round the circle of hues look alike where the eye is dull, as
between greens; these were chosen so that even the two nearest differ by a CIEDE2000 of 17, and all of them from the
colours of the layers by 9. `tests/media/test_palette.py` measures both, also through translucent lines on pictures.
"""

from __future__ import annotations

RGB = tuple[int, int, int]

PROPOSAL: RGB = (56, 189, 248)
NEGATIVE: RGB = (251, 113, 133)
REFUSED: RGB = (250, 204, 21)
SIDECAR: RGB = (226, 232, 240)
"""Boxes out of a table beside the shards that have no identity."""

IDENTITIES: tuple[RGB, ...] = (
    (0, 255, 0),
    (180, 0, 180),
    (255, 150, 0),
    (0, 150, 195),
    (255, 210, 255),
    (0, 120, 60),
    (195, 30, 45),
    (0, 255, 255),
    (165, 165, 0),
    (135, 90, 45),
    (150, 150, 225),
    (255, 180, 165),
    (255, 225, 165),
    (135, 180, 135),
    (255, 60, 255),
    (195, 135, 165),
    (0, 120, 120),
    (150, 210, 255),
    (0, 105, 195),
    (255, 0, 120),
    (225, 240, 0),
    (255, 60, 0),
    (105, 105, 30),
    (150, 75, 105),
    (0, 165, 0),
    (180, 120, 105),
    (120, 255, 195),
    (0, 180, 180),
    (90, 60, 255),
    (180, 150, 105),
)
"""By id. The first ones differ most: of the first six even the nearest by a CIEDE2000 of 39."""


def identity_colour(identity: int) -> RGB:
    """Colour of an object, a function of its id alone: stable over the frames of a clip; after the last, the first."""
    return IDENTITIES[identity % len(IDENTITIES)]


def text_on(colour: RGB) -> RGB:
    """Black or white, whichever is read better on a colour."""
    linear = [(value / 255 + 0.055) ** 2.4 / 1.055**2.4 if value > 10 else value / 255 / 12.92 for value in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]  # of sRGB, 0..1
    # Where the contrast (lighter + 0.05) / (darker + 0.05) is the same for both.
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


def css(colour: RGB) -> str:
    """`#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
