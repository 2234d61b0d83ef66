"""Lines over steps as inline SVG: sharp at any size, coloured by the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

WIDTH, HEIGHT = 380, 150
"""Of a plot in user units."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 8, 18
_MAX_POINTS = 240
"""Of a line; more steps than that are averaged, and a band shows from where to where they went."""


@dataclass(frozen=True, slots=True)
class Line:
    """Values at steps, both of one length; nan where there is none."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def tick_label(value: float) -> str:
    """Three digits, and for long numbers a letter: `3.21`, `0.00041`, `12.3k`."""
    size = abs(value)
    if not math.isfinite(value):
        return "–"
    if size and size < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.3g}{letter}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"


def draw(lines: Mapping[str, Line], label: str, *, marks: bool = False, last_step: int = 0) -> Markup:
    """A plot; its lines have the CSS classes `line-0`, `line-1`, ... in order.

    Args:
        lines: by name.
        label: what it shows, for those who cannot see it.
        marks: a dot at each value, for few of them.
        last_step: right end, so that several plots stand under each other; the last value's where that is later.
    """
    shown = [thinned(line) for line in lines.values()]
    values = [column for _, *columns in shown for column in columns]
    ticks = axis_ticks(*value_bounds(np.concatenate(values) if values else np.zeros(0)))
    bottom, top = ticks[0], ticks[-1]
    ends = [float(steps[-1]) for steps, *_ in shown if len(steps)]
    right = max([float(last_step), 1.0, *ends])

    def x(steps: NDArray[np.float64]) -> NDArray[np.float64]:
        return _LEFT + steps / right * (WIDTH - _RIGHT - _LEFT)

    def y(heights: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return np.asarray(HEIGHT - _BOTTOM - (heights - bottom) / (top - bottom) * (HEIGHT - _BOTTOM - _TOP))

    parts = []
    for tick in ticks:
        height = float(y(tick))
        parts.append(
            Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(
                _LEFT, height, WIDTH - _RIGHT, height
            )
        )
        parts.append(_text("end", _LEFT - 5, height + 3.5, tick_label(tick)))
    parts.append(_text("start", _LEFT, HEIGHT - 4, "0"))
    parts.append(_text("end", WIDTH - _RIGHT, HEIGHT - 4, f"step {right:,.0f}"))
    for place, (steps, mean, low, high) in enumerate(shown):
        for run in stretches(mean):
            across = x(steps[run])
            if np.any(high[run] > low[run]):
                there = _points(across, y(high[run]))
                back = _points(across[::-1], y(low[run][::-1]))
                parts.append(Markup('<polygon class="band line-{}" points="{} {}"/>').format(place, there, back))
            points = _points(across, y(mean[run]))
            parts.append(Markup('<polyline class="line line-{}" points="{}"/>').format(place, points))
            if marks or len(across) == 1:
                parts += [
                    Markup(
                        '<circle class="mark line-{}" cx="{:.1f}" cy="{:.1f}" r="2.6"><title>{}</title></circle>'
                    ).format(place, px, py, f"step {step:,.0f}: {tick_label(value)}")
                    for px, py, step, value in zip(across, y(mean[run]), steps[run], mean[run], strict=True)
                ]
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )


def thinned(line: Line) -> tuple[NDArray[np.float64], ...]:
    """Steps, means, least and greatest values of at most `_MAX_POINTS` neighbourhoods."""
    if len(line.steps) <= _MAX_POINTS:
        return line.steps, line.values, line.values, line.values
    groups = np.array_split(np.arange(len(line.steps)), _MAX_POINTS)
    rows = []
    for group in groups:
        values = line.values[group]
        known = values[np.isfinite(values)]
        spread = (known.mean(), known.min(), known.max()) if len(known) else (math.nan,) * 3
        rows.append((line.steps[group].mean(), *spread))
    columns = np.asarray(rows, np.float64).T
    # The line ends where the run does, not in the middle of the last neighbourhood.
    columns[0, 0], columns[0, -1] = line.steps[0], line.steps[-1]
    return tuple(columns)


def stretches(values: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Indices of each stretch without a gap."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return []
    return np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)


def value_bounds(values: NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    if low >= 0 and low < 0.5 * high:
        low = 0.0  # what is near nought is shown from nought
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        margin = 0.5 * abs(high) or 1.0
        return low - margin, high + margin
    return low, high


def axis_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers, the first at or under `low`, the last at or over `high`."""
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _points(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs.tolist(), ys.tolist(), strict=True))


def _text(anchor: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(anchor, x, y, text)


def as_line(steps: Sequence[float], values: Sequence[float | None]) -> Line:
    """From rows of metrics; None is nan."""
    return Line(np.asarray(steps, np.float64), np.asarray([math.nan if v is None else v for v in values], np.float64))
