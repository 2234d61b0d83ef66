"""Sidecars for people: their boxes on pictures, their columns in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.inspect.overlay import More, MoreBoxes
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.sidecars.about import Sidecar, Sidecars, find_sidecars
from trackmill.pipeline.sidecars.part import read_part
from trackmill.pipeline.sidecars.parts import part_tasks
from trackmill.pipeline.sidecars.tables import SidecarTables
from trackmill.pipeline.storage.names import printable
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import shortened

_IDENTITIES = ("chain", "id", "track")
"""A column of whole numbers with one of these names decides the colour of a box; else the class does, if it has one."""
_TAG = 24
"""Characters of a class that are written beside its box."""
_TAGGED = 10
"""Boxes of a frame beside which something is written, the best ones: more would hide the picture."""


def boxes_of(dataset: Dataset, name: str, sidecars: Sidecars | None = None) -> More:
    """The boxes of a sidecar for `trackmill.pipeline.inspect.overlay`; each is titled with its other columns.

    Args:
        dataset: that it belongs to.
        name: of the sidecar.
        sidecars: of the data set, where they are known; None: they are listed.

    Raises:
        NoSidecar: there is none of this name; says what makes it.
        InputError: it has no column of boxes, or the data set has no receipts.
    """
    if dataset.layout is None:
        raise InputError(f"--sidecar {name}: tars alone have no sidecars; name the root of their data set")
    tables = SidecarTables(find_sidecars(dataset.layout) if sidecars is None else sidecars, dataset.shards)
    columns = {column.name: column.dtype for column in tables.sidecars[name].about.columns}
    box = next((column for column, dtype in columns.items() if dtype == "box"), "")
    if not box:
        raise InputError(f"--sidecar {name}: it has no column of boxes, only {', '.join(columns)}")
    identity = next((column for column in _IDENTITIES if columns.get(column) in ("int32", "int64")), "")
    classes: dict[str, int] = {}
    named = columns.get("label") == "string" and columns.get("score", "").startswith("float")

    def more(sample: Sample, frame: int) -> MoreBoxes:
        rows = tables.rows(name, sample.shard, sample.key, frame)
        others = {column: values for column, values in rows.items() if columns[column] != "box"}
        titles = [", ".join(f"{c} {_short(values[i])}" for c, values in others.items()) for i in range(len(rows[box]))]
        if identity or not named:
            return MoreBoxes(rows[box], titles, rows[identity].tolist() if identity else None)
        labels = [printable(str(label)) for label in rows["label"]]
        tags = [f"{shortened(label, _TAG)} {score:.2f}".strip() for label, score in zip(labels, rows["score"])]
        tagged = set(np.argsort(-rows["score"], kind="stable")[:_TAGGED].tolist())
        # A class has one colour in all frames, and the classes that are met first differ most.
        identities = [classes.setdefault(label, len(classes)) for label in labels]
        return MoreBoxes(rows[box], titles, identities, [tag if row in tagged else "" for row, tag in enumerate(tags)])

    return more


@dataclass
class SidecarSummary:
    """What a sidecar amounts to.

    Args:
        name, producer, fingerprint: see `trackmill.pipeline.sidecars.about.About`.
        parts, missing: how many there are, and how many more there should be.
        num_bytes, rows, samples, quarantined: over all parts.
        numbers: least, mean and greatest value of each column of numbers.
        words: the most common values of each column of text.
        counts: what the producer counted beside its rows, such as detections that it left out, by reason.
    """

    name: str
    producer: str
    fingerprint: str
    parts: int
    missing: int
    num_bytes: int
    rows: int = 0
    samples: int = 0
    quarantined: int = 0
    numbers: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    words: dict[str, dict[str, int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


def summarise_sidecars(dataset: Dataset) -> list[SidecarSummary]:
    """Read all sidecars of a data set and count.

    Raises:
        BadPart: a part is damaged; `--verify` finds all that are.
        SidecarError: a `sidecar.json` is damaged.
    """
    if dataset.layout is None or not dataset.receipts:
        return []
    sidecars = find_sidecars(dataset.layout)
    expected = {task.file_name for task in part_tasks(dataset.shards)}
    return [_summary(sidecars[name], expected) for name in sorted({*sidecars.by_name, *sidecars.damaged})]


def summary_lines(summary: SidecarSummary) -> list[str]:
    """The same in sentences."""
    missing = f", {summary.missing} more are missing" if summary.missing else ""
    quarantined = f", {summary.quarantined:,} quarantined" if summary.quarantined else ""
    lines = [
        f"sidecar {summary.name}  {summary.rows:,} rows about {summary.samples:,} samples{quarantined}, in "
        f"{summary.parts:,} parts of {summary.num_bytes:,} bytes{missing}; by {summary.producer}, fingerprint "
        f"{summary.fingerprint}"
    ]
    for column, (least, mean, most) in summary.numbers.items():
        lines.append(f"  {column}  {least:g} … {most:g}, mean {mean:.4g}")
    for column, counts in summary.words.items():
        lines.append(f"  {column}  {', '.join(f'{word} {count:,}' for word, count in counts.items())}")
    if summary.counts:
        lines.append(f"  counted  {', '.join(f'{what} {count:,}' for what, count in summary.counts.items())}")
    return lines


def list_sidecars(dataset: Dataset) -> list[str]:
    """A line for each sidecar, from names and lengths of its files alone; empty where there is none."""
    if dataset.layout is None or not dataset.receipts:
        return []
    found, lines = find_sidecars(dataset.layout), []
    try:
        expected = {task.file_name for task in part_tasks(dataset.shards)}
    except InputError:  # shards that mining did not name have no parts, and can be looked at all the same
        expected = set()
    for name, sidecar in found.by_name.items():
        missing = len(expected - sidecar.parts.keys())
        size = f"{len(sidecar.parts):,} parts, {readable_bytes(sum(sidecar.parts.values()))}"
        lines.append(f"sidecar {name}: {size}" + (f", {missing:,} parts are missing" if missing else ""))
    return lines + [f"warning: {what}" for what in found.damaged.values()]


def _summary(sidecar: Sidecar, expected: set[str]) -> SidecarSummary:
    about = sidecar.about
    made = about.parts.get("producer", {})
    summary = SidecarSummary(
        name=about.name,
        producer=f"{made.get('name', 'unknown')}/{made.get('version', '?')}",
        fingerprint=about.fingerprint,
        parts=len(sidecar.parts),
        missing=len(expected - sidecar.parts.keys()),
        num_bytes=sum(sidecar.parts.values()),
    )
    totals: dict[str, list[tuple[float, float, float]]] = {}
    words: dict[str, Counter[str]] = {}
    for name in sorted(sidecar.parts):
        part = read_part(join(sidecar.folder, name), f"sidecars/{about.name}/{name}", about.columns)
        summary.rows += part.table.num_rows
        summary.samples += part.about.samples
        summary.quarantined += len(part.about.quarantined)
        summary.counts.update(part.about.counts)
        for column in about.columns:
            values = part.table[column.name]
            if column.dtype == "string":
                words.setdefault(column.name, Counter()).update(values.to_pylist())
            elif column.dtype != "box" and part.table.num_rows:
                array = values.to_numpy().astype(np.float64)
                totals.setdefault(column.name, []).append((array.min(), array.sum(), array.max()))
    summary.numbers = {column: _joined(found, summary.rows) for column, found in totals.items()}
    summary.words = {column: dict(counter.most_common(12)) for column, counter in words.items()}
    return summary


def _joined(found: Sequence[tuple[float, float, float]], rows: int) -> tuple[float, float, float]:
    least, sums, most = zip(*found)
    return float(min(least)), float(sum(sums) / rows), float(max(most))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
