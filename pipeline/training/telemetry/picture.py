"""Lines over steps as a PNG picture: a grid of small plots, for places that show pictures only."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trackmill.pipeline.training.telemetry.plot import (
    Line,
    axis_ticks,
    stretches,
    thinned,
    tick_label,
    value_bounds,
)

COLUMNS = 3
"""Plots beside each other."""
_WIDTH, _HEIGHT = 400, 230
"""Of a plot with its title, in pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 34, 26
_LEGEND_LINE = 20
_FINE = 2
"""Drawn this much larger and scaled down, which makes lines smooth."""
_BACKGROUND, _INK, _FAINT, _GRID = (255, 255, 255), (30, 30, 30), (110, 110, 110), (225, 225, 225)
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (90, 90, 90))
"""Told apart by people of any colour vision (Okabe and Ito, 2008)."""


def draw_png(panels: Mapping[str, Mapping[str, Line]], marked: Sequence[str] = ()) -> bytes:
    """A picture of plots, row by row.

    Args:
        panels: by title, the lines of a plot by name. A name has one colour in all plots; a legend names them if there
            is more than one.
        marked: titles of plots with a dot at each value, for few of them.

    Returns:
        The bytes of a PNG file; the same lines give the same bytes.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    legend = _LEGEND_LINE * -(-len(names) // COLUMNS) + 8 if len(names) > 1 else 0
    rows = max(1, -(-len(panels) // COLUMNS))
    size = (COLUMNS * _WIDTH * _FINE, (rows * _HEIGHT + legend) * _FINE)
    image = Image.new("RGB", size, _BACKGROUND)
    pen = ImageDraw.Draw(image)
    for place, name in enumerate(names if legend else []):
        x, y = (place % COLUMNS) * _WIDTH + 16, 8 + _LEGEND_LINE * (place // COLUMNS)
        _line(pen, [(x, y + 8), (x + 24, y + 8)], _colour(place), 3)
        _text(pen, (x + 32, y), name, _INK)
    for place, (title, lines) in enumerate(panels.items()):
        corner = (place % COLUMNS * _WIDTH, legend + place // COLUMNS * _HEIGHT)
        colours = [_colour(names.index(name)) for name in lines]
        _plot(pen, corner, title, list(lines.values()), colours, title in marked)
    small = image.resize((size[0] // _FINE, size[1] // _FINE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _plot(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    title: str,
    lines: Sequence[Line],
    colours: Sequence[tuple[int, int, int]],
    marks: bool,
) -> None:
    shown = [thinned(line)[:2] for line in lines]
    ticks = axis_ticks(*value_bounds(np.concatenate([values for _, values in shown]) if shown else np.zeros(0)))
    right = max([1.0, *(float(steps[-1]) for steps, _ in shown if len(steps))])
    left, top = corner[0] + _LEFT, corner[1] + _TOP
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def points(steps: NDArray[np.float64], values: NDArray[np.float64]) -> list[tuple[float, float]]:
        across = left + steps / right * width
        down = top + height - (values - ticks[0]) / (ticks[-1] - ticks[0]) * height
        return list(zip(across.tolist(), down.tolist(), strict=True))

    _text(pen, (left, corner[1] + 10), title, _INK)
    for tick in ticks:
        ((_, y),) = points(np.zeros(1), np.array([tick]))
        _line(pen, [(left, y), (left + width, y)], _GRID, 1)
        _text(pen, (left - 6, y), tick_label(tick), _FAINT, "rm")
    _text(pen, (left, top + height + 6), "0", _FAINT)
    _text(pen, (left + width, top + height + 6), f"step {right:,.0f}", _FAINT, "ra")
    for (steps, values), colour in zip(shown, colours, strict=True):
        for stretch in stretches(values):
            run = points(steps[stretch], values[stretch])
            _line(pen, run, colour, 2)
            for x, y in run if marks or len(run) == 1 else []:
                pen.ellipse([(x - 3) * _FINE, (y - 3) * _FINE, (x + 3) * _FINE, (y + 3) * _FINE], fill=colour)


def _colour(place: int) -> tuple[int, int, int]:
    return _COLOURS[place % len(_COLOURS)]


def _line(
    pen: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: tuple[int, int, int], width: int
) -> None:
    pen.line([(x * _FINE, y * _FINE) for x, y in points], fill=colour, width=width * _FINE, joint="curve")


def _text(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    anchor: str = "la",
) -> None:
    font = ImageFont.load_default(12 * _FINE)
    pen.text((place[0] * _FINE, place[1] * _FINE), text, fill=colour, font=font, anchor=anchor)
