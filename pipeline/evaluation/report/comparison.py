"""Several trackers side by side: one table of totals, and their leading score by sequence and by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson
from rich.console import RenderableType
from rich.text import Text

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.evaluation.report.report import Report, Row
from trackmill.pipeline.evaluation.report.table import (
    MAX_CLASSES,
    MAX_SEQUENCES,
    columns,
    headings,
    leading,
    note_lines,
    print_parts,
    printable,
    settings_in_words,
    settings_line,
    tables,
)
from trackmill.pipeline.storage.publish import publish_bytes


@dataclass(slots=True, kw_only=True)
class Comparison:
    """Reports of the same benchmark and ground truth.

    Args:
        benchmark: its name.
        trackers: the report of each, by the name that was given, in the order of the command.
    """

    benchmark: str
    trackers: dict[str, Report]

    @property
    def metrics(self) -> dict[str, Row]:
        """The totals of each tracker."""
        return {name: report.metrics for name, report in self.trackers.items()}

    @property
    def score(self) -> str:
        """The score by which trackers are ranked."""
        rows = list(self.metrics.values())
        return leading(columns(rows), rows)

    def by_sequence(self) -> dict[str, Row]:
        """`score` of each sequence: a column a tracker."""
        return self._by(lambda report: report.sequences)

    def by_class(self) -> dict[str, Row]:
        """`score` of each class: a column a tracker."""
        return self._by(lambda report: report.classes)

    def notes(self) -> list[str]:
        """Notes of all reports; those that do not hold for all begin with the tracker's name."""
        reports = self.trackers.values()
        everywhere = [
            note for note in next(iter(reports)).notes if all(note in report.notes for report in self.trackers.values())
        ]
        return everywhere + [
            f"{name}: {note}"
            for name, report in self.trackers.items()
            for note in report.notes
            if note not in everywhere
        ]

    def as_json(self) -> bytes:
        """The `--output` file: `benchmark`, and under `trackers` what the file of each alone would hold."""
        record = {
            "benchmark": self.benchmark,
            "trackers": {name: report.record() for name, report in self.trackers.items()},
        }
        return orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)

    def _by(self, rows_of: Callable[[Report], dict[str, Row]]) -> dict[str, Row]:
        names = dict.fromkeys(name for report in self.trackers.values() for name in rows_of(report))
        return {
            name: {tracker: rows_of(report).get(name, {}).get(self.score) for tracker, report in self.trackers.items()}
            for name in names
        }


def print_comparison(comparison: Comparison, *, width: int | None = None) -> None:
    """Print to standard output, as `print_report` does."""
    print_parts(lambda limit: list(_parts(comparison, limit)), width)


def write_comparison_html(comparison: Comparison, url: str) -> int:
    """Write the page; returns the length of the file in bytes.

    Raises:
        OSError: the file cannot be written.
    """
    from trackmill.pipeline.evaluation.report.html_parts import MEANINGS, bars_of, render, table_of

    names, first = list(comparison.trackers), next(iter(comparison.trackers.values()))
    by_part = [(f"{comparison.score} by sequence", table_of("sequence", comparison.by_sequence(), names=names))]
    if len(first.classes) > 1:
        by_part.append((f"{comparison.score} by class", table_of("class", comparison.by_class(), names=names)))
    html = render(
        "comparison.html.j2",
        title=printable(comparison.benchmark),
        headings=_headings(comparison),
        settings=_settings(first),
        notes=[printable(note, 1000) for note in comparison.notes()],
        meanings=[(name, MEANINGS[name]) for name in columns(comparison.metrics.values()) if name in MEANINGS],
        bars=bars_of(comparison.metrics, comparison.score),
        trackers=table_of("tracker", comparison.metrics),
        by_part=by_part,
    ).encode("utf-8", "replace")
    publish_bytes(url, html)
    return len(html)


def _settings(report: Report) -> list[tuple[str, str]]:
    return list(settings_in_words(report.settings).items())


def _headings(comparison: Comparison) -> list[str]:
    first = next(iter(comparison.trackers.values()))
    return [counted(len(comparison.trackers), "tracker"), *headings(first)]


def _parts(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    first = next(iter(comparison.trackers.values()))
    names = list(comparison.trackers)
    yield Text(" · ".join([printable(comparison.benchmark), *_headings(comparison)]), style="bold")
    yield from settings_line(first.settings)
    yield from tables("tracker", comparison.metrics, {}, len(names), width)
    if len(first.sequences) > 1:
        yield from tables(f"{comparison.score} by sequence", comparison.by_sequence(), {}, MAX_SEQUENCES, width, names)
    if len(first.classes) > 1:
        yield from tables(f"{comparison.score} by class", comparison.by_class(), {}, MAX_CLASSES, width, names)
    yield from note_lines(comparison.notes())
