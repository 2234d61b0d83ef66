"""The curves of a run as one HTML page, complete in itself, drawn from its `metrics.jsonl` and `evaluations.jsonl`; and
of one run or several as a PNG picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import basename, canonical, join
from trackmill.pipeline.training.telemetry.lines import read_lines
from trackmill.pipeline.training.telemetry.picture import draw_png
from trackmill.pipeline.training.telemetry.plot import Line, as_line, draw, tick_label
from trackmill.pipeline.training.telemetry.tags import tag
from trackmill.schemas.errors import InputError

_MEANINGS = {
    "loss": "sum of the parts, as it is minimised",
    "lr": "of this step, by the schedule",
    "grad_norm": "norm of all gradients before clipping",
    "similarity_gap": "how much nearer positives are than negatives; than the nearest, along chains",
    "effective_negatives": "boxes that share the weight of an anchor's negatives",
    "positives": "anchors whose object is in the other view, or in the next frame",
    "chain_length": "frames of an identity that follow each other, mean",
    "chain_length_max": "the same of the longest",
    "samples_per_s": "over all ranks",
    "data_wait": "share of a step's time",
    "memory_bytes": "most bytes held so far, by the GPU's tensors or the process",
}
_TITLES = {
    "lr": "learning rate",
    "samples_per_s": "samples/s",
    "data_wait": "waiting for data",
    "memory_bytes": "memory",
}
_PLOTS = tuple(name for name in _MEANINGS if name != "loss")
"""What has a plot of its own, in this order; everything else in a group `loss/` is a part of the loss."""
_TOGETHER: dict[str, tuple[str, tuple[str, ...]]] = {
    "people that queries learn": (
        "in a clip, by detect and by track queries; newborns are the ones that no track query holds yet",
        ("positives_detect", "positives_track", "newborn"),
    ),
    "queries that go wrong": (
        "in a clip: identities lost by overlap, queries of nobody that go on, detect queries on people with a track, "
        "people without a query",
        ("released", "false_positives", "duplicates", "left_over"),
    ),
    "losses of the TrackBook": (
        "pictures to texts and texts to pictures; it learns by itself, so they are no part of the loss",
        ("i2t", "t2i"),
    ),
}
"""Plots of several lines, by title."""
_UNWEIGHTED = frozenset({"focal", "l1", "giou", "dem", "triplet", "i2tce"})
"""Parts that IP-MOT reports without their weights."""
_IN_PICTURES = (
    *("positives_detect", "positives_track", "released", "false_positives", "duplicates", "i2t", "t2i"),
    *("similarity_gap", "effective_negatives", "positives", "chain_length", "grad_norm", "lr"),
)
"""What says how training went; the rest says how fast."""
_MAX_PARTS = 6
"""Lines in the plot of the loss's parts, the largest first."""


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    meaning: str
    last: str
    legend: list[str]
    plot: Markup


def write_curves(output: str, target: str) -> None:
    """Draw loss and its parts, learning rate, similarities, speed and evaluations over the steps.

    Args:
        output: root of a run.
        target: URL of the HTML file.

    Raises:
        FileNotFoundError: the run has no `metrics.jsonl`.
        OSError: the page could not be written.
    """
    output = canonical(output)
    rows, evaluations = _read(output)
    environment = Environment(
        loader=PackageLoader("trackmill.pipeline.training.telemetry", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("curves.html.j2").render(
        name=basename(output),
        figures=_figures(rows, evaluations),
        training=_training(rows),
        evaluation=_evaluation(evaluations, last_step=int(rows[-1]["step"]) if rows else 0),
    )
    publish_bytes(target, page.encode())


def write_picture(outputs: Mapping[str, str], target: str) -> None:
    """Draw the numbers of one run, or of several over each other, as a PNG.

    Args:
        outputs: roots of runs by the name that the legend calls them, such as seeds.
        target: URL of the PNG file.

    Raises:
        FileNotFoundError: a run has no `metrics.jsonl`.
        InputError: there is no step in it.
        OSError: the picture could not be written.
    """
    training: dict[str, dict[str, Line]] = {}
    evaluation: dict[str, dict[str, Line]] = {}
    for run, output in outputs.items():
        rows, evaluations = _read(canonical(output))
        if not rows:
            raise InputError(f"{redact(output)}: no step stands in its metrics.jsonl yet, so there is nothing to draw")
        for panels, found in ((training, rows), (evaluation, evaluations)):
            for name, line in _lines(found).items():
                panels.setdefault(name, {})[run] = line
    shown = {_TITLES.get(name, name.replace("_", " ")): training[name] for name in ("loss",) if name in training}
    shown |= {
        name.replace("_", " "): lines
        for name, lines in training.items()
        if name != "loss" and tag(name).startswith("loss/")
    }
    shown |= {_TITLES.get(name, name.replace("_", " ")): training[name] for name in _IN_PICTURES if name in training}
    publish_bytes(target, draw_png(shown | evaluation, marked=tuple(evaluation)))


def _read(output: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of steps and of evaluations."""
    rows = [row for row in read_lines(join(output, "metrics.jsonl")) if "step" in row]
    url = join(output, "evaluations.jsonl")
    return rows, [row for row in read_lines(url) if "step" in row] if exists(url) else []


def _training(rows: Sequence[Mapping[str, Any]]) -> list[_Panel]:
    lines = _lines(rows)
    panels = [_panel(name, {name: lines[name]}) for name in ("loss",) if name in lines]
    parts = [name for name in lines if name != "loss" and tag(name).startswith("loss/")]
    parts.sort(key=lambda name: -_last(lines[name]) if math.isfinite(_last(lines[name])) else math.inf)
    if parts := parts[:_MAX_PARTS]:
        shown = {name.removeprefix("loss/"): lines[name] for name in parts}
        plot = draw(shown, f"Parts of the loss: {', '.join(shown)}")
        legend = [f"{name} {tick_label(_last(line))}" for name, line in shown.items()]
        weighted = "as weighted in the sum"
        if not _UNWEIGHTED.isdisjoint(lines):
            weighted = "tracker is a weighted sum over decoder layers; the others are without their weights"
        panels.append(_Panel("parts of the loss", weighted, "", legend, plot))
    for title, (meaning, names) in _TOGETHER.items():
        if shown := {name.replace("_", " "): lines[name] for name in names if name in lines}:
            legend = [f"{name} {tick_label(_last(line))}" for name, line in shown.items()]
            panels.append(_Panel(title, meaning, "", legend, draw(shown, f"{title}: {', '.join(shown)}")))
    return panels + [_panel(name, {name: lines[name]}) for name in _PLOTS if name in lines]


def _evaluation(rows: Sequence[Mapping[str, Any]], last_step: int) -> list[_Panel]:
    return [_panel(name, {name: line}, marks=True, last_step=last_step) for name, line in _lines(rows).items()]


def _panel(name: str, lines: Mapping[str, Line], *, marks: bool = False, last_step: int = 0) -> _Panel:
    title, last = _TITLES.get(name, name.replace("_", " ")), tick_label(_last(lines[name]))
    plot = draw(lines, f"{title} over the steps, {last} at the end", marks=marks, last_step=last_step)
    return _Panel(title, _MEANINGS.get(name, ""), last, [], plot)


def _figures(rows: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The numbers at the end, as `(what, value)`."""
    if not rows:
        return []
    last = rows[-1]
    speeds = sorted(row["samples_per_s"] for row in rows if row.get("samples_per_s") is not None)
    waits = [row["data_wait"] for row in rows if row.get("data_wait") is not None]
    figures = [("steps", f"{last['step']:,}")]
    if last.get("epoch") is not None:
        figures.append(("epochs", tick_label(last["epoch"])))
    if last.get("loss") is not None:
        figures.append(("last loss", tick_label(last["loss"])))
    if speeds:
        figures.append(("samples/s, median", tick_label(speeds[len(speeds) // 2])))
    if waits:
        figures.append(("waiting for data", f"{sum(waits) / len(waits):.1%}"))
    if last.get("bad_samples") is not None:
        figures.append(("bad samples", f"{last['bad_samples']:,.0f}"))
    if evaluations:
        figures.append(("evaluations", f"{len(evaluations):,}"))
    return figures


def _lines(rows: Sequence[Mapping[str, Any]]) -> dict[str, Line]:
    """A line for each name, in the order in which they appear."""
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    lines = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, (int, float)) for value in values):
            lines[name] = as_line([row["step"] for row in rows], values)
    return lines


def _last(line: Line) -> float:
    known = line.values[~(line.values != line.values)]
    return float(known[-1]) if len(known) else math.nan
