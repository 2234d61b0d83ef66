"""Draws inline SVG: scores over thresholds, counts over time, the boxes of a moment over its picture.

SVG stays sharp at any zoom, and takes its colours from the page's CSS. `Markup.format` escapes all texts in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.evaluation.report.pictures import EmbeddedFrame
from trackmill.pipeline.evaluation.report.report import Drawn, Moment, Timeline
from trackmill.pipeline.evaluation.report.table import printable

WIDTH = 320
"""Width of both plots in user units; equal, so that they align."""
_CURVES_HEIGHT, _TIMELINE_HEIGHT = 132, 108
_LEFT, _RIGHT, _TOP, _BOTTOM = 30, 8, 8, 18
_MAX_BINS = 140
"""Largest number of columns of a timeline; with more frames, columns are averages."""
_ASPECT = 1.6
"""Width by height of a moment without a picture."""


def curves_plot(curves: Mapping[str, Sequence[float]], name: str) -> Markup:
    """A line for each score, percent (0 to 100) at each threshold; the CSS classes are `line-0`, `line-1`, ...

    Args:
        curves: by score; all of one length, at thresholds .05, .10, ...
        name: name of the sequence, for the accessible label.
    """
    bottom, right = _CURVES_HEIGHT - _BOTTOM, WIDTH - _RIGHT
    count = max((len(curve) for curve in curves.values()), default=1)

    def place(threshold: float) -> float:
        return _LEFT + (threshold / 0.05 - 1) / max(1, count - 1) * (right - _LEFT)

    parts = []
    for value in (0, 50, 100):
        y = bottom - value / 100 * (bottom - _TOP)
        parts += [_line("grid", _LEFT, y, right, y), _text("end", _LEFT - 5, y + 3.5, value)]
    for threshold in (0.05, 0.5, 0.95):
        if threshold <= 0.05 * count + 1e-9:
            anchor = {0.05: "start", 0.5: "middle", 0.95: "end"}[threshold]
            parts.append(_text(anchor, place(threshold), _CURVES_HEIGHT - 4, f"{threshold:g}"))
    last = []
    for number, (score, curve) in enumerate(curves.items()):
        heights = bottom - np.clip(np.asarray(curve, np.float64), 0, 100) / 100 * (bottom - _TOP)
        points = " ".join(f"{place(0.05 * (i + 1)):.1f},{y:.1f}" for i, y in enumerate(heights.tolist()))
        parts.append(Markup('<polyline class="line line-{}" points="{}"/>').format(number, points))
        last.append(f"{score} {curve[0]:.1f} at .05, {curve[-1]:.1f} at {0.05 * len(curve):.2f}")
    return _svg(WIDTH, _CURVES_HEIGHT, f"{name}: scores over overlap thresholds. {'; '.join(last)}", parts)


def timeline_plot(timeline: Timeline, name: str) -> Markup:
    """Matched and missed objects upwards, false ones downwards, a mark where identities switch; frames from 1.

    Args:
        timeline: counts by frame.
        name: name of the sequence, for the accessible label.
    """
    num_frames = len(timeline.tp)
    starts = np.unique(np.linspace(0, num_frames, min(num_frames, _MAX_BINS), endpoint=False).astype(np.int64))
    matched, missed, false = (_means(counts, starts) for counts in (timeline.tp, timeline.fn, timeline.fp))
    bounds = np.append(starts, num_frames)
    edges = _LEFT + bounds / max(1, num_frames) * (WIDTH - _RIGHT - _LEFT)
    up, down = float(np.max(matched + missed, initial=0)), float(np.max(false, initial=0))
    top, bottom = _TOP + 8, _TIMELINE_HEIGHT - _BOTTOM
    unit = (bottom - top) / max(1.0, up + down)
    zero = top + up * unit
    parts = [
        _area("tp", edges, zero - matched * unit, np.full(len(starts), zero)),
        _area("fn", edges, zero - (matched + missed) * unit, zero - matched * unit),
        _area("fp", edges, np.full(len(starts), zero), zero + false * unit),
        _line("axis", _LEFT, zero, WIDTH - _RIGHT, zero),
    ]
    if up:
        parts.append(_text("end", _LEFT - 5, top + 3.5, f"{up:.0f}"))
    if down:
        parts.append(_text("end", _LEFT - 5, max(zero + down * unit + 3.5, top + 15), f"{down:.0f}"))
    for (begin, end), (x0, x1) in zip(pairwise(bounds.tolist()), pairwise(edges.tolist()), strict=True):
        switches = sum(timeline.idsw[begin:end])
        if switches:
            when = f"frame {begin + 1:,}" if end - begin == 1 else f"frames {begin + 1:,} to {end:,}"
            parts.append(_mark((x0 + x1) / 2, bottom, f"{when}: {_counted(switches)}"))
    parts += [
        _text("start", _LEFT, _TIMELINE_HEIGHT - 4, "frame 1"),
        _text("end", WIDTH - _RIGHT, _TIMELINE_HEIGHT - 4, f"{num_frames:,}"),
    ]
    record = f"{sum(timeline.tp):,} matched, {sum(timeline.fn):,} missed, {sum(timeline.fp):,} false"
    record = f"{name}: {record}, {_counted(sum(timeline.idsw))} in {num_frames:,} frames"
    return _svg(WIDTH, _TIMELINE_HEIGHT, record, parts)


def draw_moment(moment: Moment, picture: EmbeddedFrame | None = None) -> Markup:
    """The boxes of a moment; their CSS classes are the states of `Drawn`.

    Args:
        moment: what to draw.
        picture: what it is drawn over; without one the view is as large as the boxes need.
    """
    x, y, width, height = (0, 0, picture.width, picture.height) if picture else _around(moment)
    size = max(width, _ASPECT * height) / 42
    labels = _Labels(x, y, width, height, size)
    became = {now: (gt, before) for gt, before, now in moment.switches}
    layers: dict[str, list[Markup]] = {state: [] for state in ("gt", "missed", "match", "false", "switch")}
    for drawn in moment.gt:
        layers[drawn.state].append(
            _box(drawn, f"ground truth {drawn.id}{': missed' if drawn.state == 'missed' else ''}")
        )
    for drawn in sorted(moment.predictions, key=lambda drawn: drawn.state != "switch"):
        record = f"predicted {drawn.id}"
        if drawn.state == "switch":
            gt, before = became[drawn.id]
            record += f", before {before}: ground truth {gt}"
            labels.add_switch(drawn, f"{before} → {drawn.id}")
        else:
            record += ": false, no ground truth" if drawn.state == "false" else ""
            labels.add_id(drawn)
        layers[drawn.state].append(_box(drawn, record))
    if picture:
        ground = Markup('<image href="{}" width="{}" height="{}" preserveAspectRatio="none"/>').format(
            picture.uri, picture.width, picture.height
        )
    else:
        ground = Markup("")
    switched = ", ".join(f"ground truth {gt} from {before} to {now}" for gt, before, now in moment.switches)
    return Markup(
        '<svg class="moment {}" viewBox="{:.6g} {:.6g} {:.6g} {:.6g}" role="img" aria-label="{}">{}<g>{}{}</g></svg>'
    ).format(
        "photo" if picture else "schematic",
        *(x, y, width, height),
        f"{printable(moment.sequence)}, frame {moment.frame + 1:,}: {switched}",
        ground,
        Markup("").join(box for layer in layers.values() for box in layer),
        Markup("").join(labels.drawn),
    )


def _around(moment: Moment) -> tuple[float, float, float, float]:
    """`xywh` around all boxes, of one shape whatever they are."""
    boxes = [drawn.box for drawn in (*moment.gt, *moment.predictions)]
    x0, y0 = (min(box[side] for box in boxes) for side in (0, 1))
    x1, y1 = (max(box[side] for box in boxes) for side in (2, 3))
    height = 1.2 * max(y1 - y0, (x1 - x0) / _ASPECT, 1.0)
    width = _ASPECT * height
    return (x0 + x1 - width) / 2, (y0 + y1 - height) / 2, width, height


def _counted(switches: int) -> str:
    return counted(switches, "identity switch", "identity switches")


def _means(counts: Sequence[int], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    if not len(counts):
        return np.zeros(0)
    lengths = np.diff(np.append(starts, len(counts)))
    means: NDArray[np.float64] = np.add.reduceat(np.asarray(counts, np.float64), starts) / lengths
    return means


def _area(kind: str, edges: NDArray[np.float64], upper: NDArray[np.float64], lower: NDArray[np.float64]) -> Markup:
    """The area between two step functions, each constant from one edge to the next."""
    if np.array_equal(upper, lower):
        return Markup("")
    there, back = _steps(edges, upper), _steps(edges, lower)[::-1]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in np.concatenate([there, back]).tolist())
    return Markup('<polygon class="area {}" points="{}"/>').format(kind, points)


def _steps(edges: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([np.repeat(edges, 2)[1:-1], np.repeat(values, 2)])


def _mark(x: float, bottom: float, title: str) -> Markup:
    return Markup(
        '<g class="mark"><title>{}</title><line x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>'
        '<path d="M{x:.1f} {y:.1f}l-3.6 -6h7.2z"/></g>'
    ).format(title, x=x, y=_TOP + 2, bottom=bottom)


def _line(kind: str, x0: float, y0: float, x1: float, y1: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x0, y0, x1, y1)


def _text(anchor: str, x: float, y: float, text: object) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(anchor, x, y, str(text))


def _svg(width: int, height: int, title: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(parts)
    )


class _Labels:
    """Labels of boxes, placed so that they do not overlap, where that is possible."""

    def __init__(self, x: float, y: float, width: float, height: float, size: float) -> None:
        self._right, self._bottom = x + width, y + height
        self._left, self._top = x, y
        self._size = size
        self._taken: list[tuple[float, float, float, float]] = []
        self.drawn: list[Markup] = []

    def add_switch(self, drawn: Drawn, text: str) -> None:
        """Add a filled label above, below or within the box; above it if no place is free."""
        _, y0, _, y1 = drawn.box
        width, height = (0.6 * len(text) + 0.8) * self._size, 1.5 * self._size
        x = max(self._left, min(drawn.box[0], self._right - width))
        places = [
            (x, max(self._top, min(y, self._bottom - height)), width, height)
            for y in (y0 - height, y1, y0, (y0 + y1 - height) / 2, y1 - height)
        ]
        place = next((place for place in places if self._is_free(place)), places[0])
        self._taken.append(place)
        pill = Markup('<rect class="pill" x="{:.6g}" y="{:.6g}" width="{:.6g}" height="{:.6g}" rx="{:.6g}"/>').format(
            *place, 0.3 * self._size
        )
        self.drawn += [pill, _label("pill-text", x + width / 2, place[1] + 1.1 * self._size, self._size, text)]

    def add_id(self, drawn: Drawn) -> None:
        """Add a small label in the corner of the box, or none if that is taken: the box's tooltip shows the id too."""
        size = 0.85 * self._size
        place = (drawn.box[0] + 0.25 * size, drawn.box[1] + 0.1 * size, 0.65 * len(str(drawn.id)) * size, size)
        if self._is_free(place):
            self._taken.append(place)
            self.drawn.append(_label(f"id {drawn.state}", place[0], place[1] + 0.9 * size, size, str(drawn.id)))

    def _is_free(self, place: tuple[float, float, float, float]) -> bool:
        return not any(_touch(place, other) for other in self._taken)


def _touch(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def _box(drawn: Drawn, title: str) -> Markup:
    x0, y0, x1, y1 = drawn.box
    return Markup(
        '<rect class="{}" x="{:.6g}" y="{:.6g}" width="{:.6g}" height="{:.6g}"><title>{}</title></rect>'
    ).format(drawn.state, x0, y0, x1 - x0, y1 - y0, title)


def _label(kind: str, x: float, y: float, size: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{:.6g}" y="{:.6g}" font-size="{:.6g}">{}</text>').format(kind, x, y, size, text)
