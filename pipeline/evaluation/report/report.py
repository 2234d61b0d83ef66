"""The results of an evaluation, as data for the table, the JSON file and the HTML page.

Ratios are percent, counts are integers, and a ratio without a denominator is None, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

Row = dict[str, float | int | None]
"""Scores by name, such as `{"HOTA": 62.1, "IDSW": 14}`."""


ANY_CLASS = "any class"
"""Row among the classes that is none: boxes are compared whatever their class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One object in the picture of a moment: its id, box `xyxy` in pixels, and how it was matched."""

    id: int
    box: tuple[float, float, float, float]
    state: str
    """One of `gt` (ground truth), `match`, `false` (prediction without ground truth), `missed`, `switch`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A frame in which identities switch.

    Args:
        sequence: its name.
        frame: time step from 0.
        frame_name: name of its picture under the root given as `--pictures`; empty if unknown.
        label: name of the class.
        switches: (ground-truth id, predicted id before, predicted id now) of each switch.
        gt, predictions: all objects of the frame.
    """

    sequence: str
    frame: int
    frame_name: str
    label: str
    switches: tuple[tuple[int, int, int], ...]
    gt: tuple[Drawn, ...]
    predictions: tuple[Drawn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Counts of one sequence over time, one number a frame."""

    tp: list[int]
    fn: list[int]
    fp: list[int]
    idsw: list[int]


@dataclass(slots=True, kw_only=True)
class Report:
    """Totals, rows by sequence and by class, and the data of the plots.

    Args:
        benchmark: its name.
        iou: `box` or `mask`.
        metrics: totals.
        sequences, classes: rows with the same names.
        base, novel: totals over the base and the novel classes of open-vocabulary benchmarks.
        settings: every setting that changes a number, such as class voting or the rule for ignored categories.
        notes: for the reader, such as "sequence X: no objects in the ground truth".
        curves: by sequence, then by score (`HOTA`, `DetA`, `AssA`), percent at each of the 19 thresholds .05 to .95.
        timelines: by sequence.
        moments: the worst first.
    """

    benchmark: str
    iou: str
    metrics: Row
    sequences: dict[str, Row] = field(default_factory=dict)
    classes: dict[str, Row] = field(default_factory=dict)
    base: Row | None = None
    novel: Row | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    timelines: dict[str, Timeline] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)

    def as_json(self) -> bytes:
        """The `--output` file: JSON of `record`."""
        return orjson.dumps(self.record(), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)

    def record(self) -> dict[str, Any]:
        """The names above as plain values; `base` and `novel` only where they apply."""
        record: dict[str, Any] = {
            "benchmark": self.benchmark,
            "iou": self.iou,
            "metrics": self.metrics,
            "sequences": self.sequences,
            "classes": self.classes,
        }
        if self.base is not None:
            record |= {"base": self.base, "novel": self.novel}
        return record | {
            "settings": self.settings,
            "notes": self.notes,
            "curves": self.curves,
            "timelines": {
                name: {"TP": line.tp, "FN": line.fn, "FP": line.fp, "IDSW": line.idsw}
                for name, line in self.timelines.items()
            },
            "moments": [
                {
                    "sequence": moment.sequence,
                    "frame": moment.frame,
                    "class": moment.label,
                    "switches": [{"gt": gt, "from": old, "to": new} for gt, old, new in moment.switches],
                }
                for moment in self.moments
            ],
        }


def row(fractions: Mapping[str, float], counts: Mapping[str, float] | None = None) -> Row:
    """One row: fractions become percent (None where they are not finite), counts become integers."""
    record: Row = {name: 100 * float(value) if math.isfinite(value) else None for name, value in fractions.items()}
    return record | {name: round(float(value)) for name, value in (counts or {}).items()}


Progress = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""
