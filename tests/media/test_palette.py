"""Colours of identities can be told apart: measured by CIEDE2000, bare and as lines on what pictures show."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from trackmill.pipeline.media.drawing.layers import FIRM
from trackmill.pipeline.media.drawing.palette import (
    IDENTITIES,
    NEGATIVE,
    PROPOSAL,
    REFUSED,
    RGB,
    css,
    identity_colour,
    text_on,
)

FIRST = 30
ALIKE = 12.0
"""Two thin lines on a photograph that differ by less are often taken for one colour; a just noticeable step is 1."""
BACKGROUNDS = {
    "black": (0, 0, 0),
    "asphalt": (96, 96, 100),
    "skin": (214, 160, 130),
    "foliage": (62, 88, 40),
    "sky": (140, 185, 225),
    "sand": (205, 185, 150),
    "white": (255, 255, 255),
}


def differences(first: list[RGB], second: list[RGB]) -> np.ndarray:
    """(N, M) CIEDE2000 of every pair."""
    labs = [rgb2lab(np.array(colours, float)[None] / 255)[0] for colours in (first, second)]
    found: np.ndarray = deltaE_ciede2000(labs[0][:, None], labs[1][None])
    return found


def nearest(colours: list[RGB]) -> float:
    apart = differences(colours, colours)
    return min(float(apart[i, j]) for i, j in itertools.combinations(range(len(colours)), 2))


def test_it_is_ciede2000() -> None:
    """Two of the pairs that its authors published for implementations."""
    pairs = [((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425), ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535)]
    for one, other, expected in pairs:
        assert deltaE_ciede2000(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)


def test_the_first_thirty_differ() -> None:
    colours = [identity_colour(identity) for identity in range(FIRST)]
    print(f"nearest of the first {FIRST}: {nearest(colours):.1f}; of the first 6: {nearest(colours[:6]):.1f}")
    assert nearest(colours) >= 17 and nearest(colours[:6]) >= 39


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_they_differ_as_lines_on_pictures(background: str) -> None:
    """The outlines of masks let a little of the picture through."""
    opacity = FIRM.edge / 255
    under = np.array(BACKGROUNDS[background], float)
    drawn = [tuple(opacity * np.array(identity_colour(i)) + (1 - opacity) * under) for i in range(FIRST)]
    assert nearest(drawn) >= ALIKE  # type: ignore[arg-type]


def test_no_identity_looks_like_a_layer() -> None:
    assert differences(list(IDENTITIES), [PROPOSAL, NEGATIVE, REFUSED]).min() >= 9


def test_names_are_read_on_every_colour() -> None:
    """A contrast of 4.5 is what the Web Content Accessibility Guidelines ask of text."""

    def luminance(colour: RGB) -> float:
        parts = [c / 255 for c in colour]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for colour in IDENTITIES:
        darker, lighter = sorted((luminance(colour), luminance(text_on(colour))))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, colour


def test_an_identity_keeps_its_colour_and_all_have_one() -> None:
    assert len(set(IDENTITIES)) == len(IDENTITIES) >= FIRST
    assert identity_colour(3) == identity_colour(3 + len(IDENTITIES))
    assert identity_colour(-1) in IDENTITIES and identity_colour(2**62) in IDENTITIES
    assert css((0, 10, 255)) == "#000aff"
