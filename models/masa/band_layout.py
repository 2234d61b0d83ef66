"""How a region is cut into bands, and what each of them holds. Plain data; imports no framework."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BandLayout:
    """Settings of `trackmill.models.masa.bands.BandHead`.

    Args:
        bands: rows of cells; each row is one band, the columns of a band are averaged.
        columns: cells of a band.
        samples: bilinear samples along each side of a cell.
        margin: share of the box's width that is left out on the left and on the right, where the background is.
        coarsest: length of the coarsest map's part of the feature; those of the other maps have the length 1.
        colours: length of the part that holds colours (`trackmill.models.layers.colours`); 0: none.
    """

    bands: int
    columns: int
    samples: int
    margin: float = 0.0
    coarsest: float = 1.0
    colours: float = 0.0


SIX_BANDS = BandLayout(bands=6, columns=3, samples=2)
"""The whole width of the box; maps alone."""

COLOUR_BANDS = BandLayout(bands=12, columns=4, samples=1, margin=1 / 6, coarsest=0.7, colours=1.0)
"""Thinner bands of the middle, the coarsest map for less, colours beside them. Chosen by rank-1 on TUD-Stadtmitte and
PETS09-S2L1 together; `python -m tests.benchmarks.transfer` measures the steps on any sequences.
"""
