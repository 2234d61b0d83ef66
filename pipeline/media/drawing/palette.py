"""The colours of the layers, the same in overlays and contact sheets."""

from __future__ import annotations

import colorsys

RGB = tuple[int, int, int]

PROPOSAL: RGB = (56, 189, 248)
NEGATIVE: RGB = (251, 113, 133)
REFUSED: RGB = (250, 204, 21)
SIDECAR: RGB = (226, 232, 240)
"""Boxes out of a table beside the shards that have no identity."""
_GOLDEN = 0.6180339887
# Hues in degrees that are free for identities: neither the blue of proposals nor the rose of negatives.
_FREE_HUES = ((70, 165), (250, 320), (15, 45))


def identity_colour(identity: int) -> RGB:
    """Colour of an object, a function of its id alone: stable over the frames of a clip, far apart for near ids."""
    place = (identity * _GOLDEN) % 1.0 * sum(end - begin for begin, end in _FREE_HUES)
    hue = 0.0
    for begin, end in _FREE_HUES:
        hue = begin + place
        if place < end - begin:
            break
        place -= end - begin
    lightness = (0.62, 0.52, 0.72)[identity % 3]
    red, green, blue = colorsys.hls_to_rgb(hue / 360, lightness, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def css(colour: RGB) -> str:
    """`#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
