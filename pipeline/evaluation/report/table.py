"""Prints a report as text; also orders columns, formats numbers and shortens long lists for the HTML page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from trackmill.pipeline.console.output import raw_stream
from trackmill.pipeline.console.words import counted
from trackmill.pipeline.evaluation.report.report import ANY_CLASS, Report, Row
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.storage.credentials import scrub
from trackmill.pipeline.storage.names import printable as spelt_printable

MAX_SEQUENCES, MAX_CLASSES = 200, 40
"""Largest number of printed rows; `--out` has all of them."""

_TETA = ("TETA", "LocA", "AssocA", "ClsA")
_HOTA = ("HOTA", "DetA", "AssA")
MAIN = (
    *("mHOTA", "mMOTA", "mIDF1", "mTETA", "mMOTP"),
    *_TETA,
    *_HOTA,
    *("HOTA.LocA", "HOTA(0)", "LocA(0)", "MOTA", "MOTP", "Rcll", "Prcn", "FAF"),
    *("MT", "MT%", "PT", "ML", "ML%", "IDSW", "Frag", "IDF1", "IDP", "IDR"),
    *("AP", "AP50", "AP75", "AR", "AR1", "AR10", "AR100", "AR300", "TrackAP", "TrackAP50", "TrackAP75", "TrackAR"),
)
"""The scores that papers print, in the usual order."""
_DETAILS = (
    *("LocRe", "LocPr", "AssocRe", "AssocPr", "ClsRe", "ClsPr"),
    *("DetRe", "DetPr", "AssRe", "AssPr", "OWTA", "MODA", "sMOTA", "Recall", "Precision"),
    *("TP", "FN", "FP", "IDTP", "IDFN", "IDFP", "GT", "GT_IDs", "Dets", "IDs"),
    *("AP_s", "AP_m", "AP_l", "AR_s", "AR_m", "AR_l"),
)
"""Scores that explain the main ones: in `--out` and on the page, but not on the terminal."""
_GAP = 2
_MAX_NAME = 200
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    row: Row
    style: str = ""
    is_row: bool = True

    def cell(self, column: str) -> str:
        return format_number(self.row.get(column)) if self.is_row else ""


def print_report(report: Report, *, width: int | None = None) -> None:
    """Print to standard output: in colour on a terminal, elsewhere as plain text with one line a row.

    Args:
        report: what to print.
        width: columns to fit into; by default those of the terminal, or no limit without a terminal. A wider table is
            continued below with its further columns; numbers are never cut. Long lists keep their best and worst rows
            and say how many were left out.
    """
    print_parts(lambda limit: _parts(report, limit), width)


def print_parts(parts: Callable[[int], Iterable[RenderableType]], width: int | None = None) -> None:
    """Print what `parts` gives for a number of columns; see `print_report`."""
    stream = raw_stream(sys.stdout)
    if stream.isatty():
        console = Console(file=stream, highlight=False)
        width = width or console.width
    else:
        # FORCE_COLOR and COLUMNS are ignored, so that a file or a pipe gets text that can be searched and compared.
        console = Console(file=stream, highlight=False, force_terminal=False, color_system=None)
    # Tables are laid out here; Rich would shorten the numbers of one that does not fit.
    console.width = _NO_LIMIT
    with console.capture() as captured:
        for part in parts(width or _NO_LIMIT):
            console.print(part, soft_wrap=True)
    encoding = stream.encoding or "utf-8"
    stream.write(captured.get().encode(encoding, "replace").decode(encoding))


def columns(rows: Iterable[Row]) -> list[str]:
    """All names in some rows: those of `MAIN` in its order, then details, then unknown names."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    order = [*MAIN, *_DETAILS]
    if "TETA" not in names:
        # LocA belongs to TETA where that is reported, to HOTA otherwise.
        order.remove("LocA")
        order.insert(order.index("AssA") + 1, "LocA")
    rank = {name: place for place, name in enumerate(order)}
    return sorted(names, key=lambda name: rank.get(name, len(rank)))


def leading(names: Sequence[str], rows: Iterable[Row]) -> str:
    """The score by which rows are ranked: the first column that holds a ratio; "" where there is none."""
    ratios = {name for row in rows for name, value in row.items() if isinstance(value, float)}
    return next((name for name in names if name in ratios), "")


def extremes(rows: Mapping[str, Row], score: str, most: int) -> tuple[list[str], list[str], int]:
    """Shorten a long list to its best and worst rows.

    Args:
        rows: by name.
        score: the score to rank by.
        most: number of rows to keep.

    Returns:
        Names of the highest rows, best first; names of the lowest ones, best first; and the number of rows left out
        because they are in between or have no score. A list that is short enough is returned first, in its own order.
    """
    if len(rows) <= most:
        return list(rows), [], 0
    scored = [name for name, row in rows.items() if row.get(score) is not None]
    ranked = sorted(scored, key=lambda name: -float(rows[name][score] or 0))
    if len(ranked) <= most:
        return ranked, [], len(rows) - len(ranked)
    high = most - most // 2
    return ranked[:high], ranked[len(ranked) - most // 2 :], len(rows) - most


def format_number(value: float | int | None) -> str:
    """A count with thousands separators, a ratio with three decimals, `–` for an undefined value."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def printable(value: object, limit: int = _MAX_NAME) -> str:
    """Untrusted text made safe to show: of bounded length, without control characters or credentials."""
    text = spelt_printable(scrub(str(value)))
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def settings_in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """Names and values of all settings that are not None; nested ones are shown to the first level only."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        inner = value.items() if isinstance(value, dict) else ()
        flat |= {f"{name}.{key}": entry for key, entry in inner if not isinstance(entry, dict)} or {name: value}
    return {printable(name): _in_words(value) for name, value in flat.items() if not isinstance(value, dict | None)}


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return printable(", ".join(map(str, value)) or "none", 400)
    return printable(value, 400)


def headings(report: Report) -> list[str]:
    """Boxes or masks, and the numbers of sequences and classes, in words."""
    parts = ["masks" if report.iou == "mask" else "boxes", counted(len(report.sequences), "sequence")]
    num_classes = len(set(report.classes) - {ANY_CLASS, *report.settings.get("super_categories", ())})
    return [*parts, counted(num_classes, "class", "classes")] if report.classes else parts


def _parts(report: Report, width: int) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(" · ".join([printable(report.benchmark), *headings(report)]), style="bold")]
    parts += settings_line(report.settings)
    parts += tables("sequence", report.sequences, {"TOTAL": report.metrics}, MAX_SEQUENCES, width)
    if len(report.classes) > 1:
        parts += tables("class", report.classes, {}, MAX_CLASSES, width)
    if report.base is not None or report.novel is not None:
        split = {"base": report.base or {}, "novel": report.novel or {}}
        parts += tables("classes", split, {"all": report.metrics}, len(split), width)
    return parts + note_lines(report.notes)


def settings_line(settings: Mapping[str, Any]) -> list[RenderableType]:
    """The settings that differ from the default, in a line, if there are any."""
    defaults = {name: field.default for name, field in Options.model_fields.items()}
    chosen = {name: value for name, value in settings.items() if name not in defaults or defaults[name] != value}
    line = " · ".join(f"{name} {value}" for name, value in settings_in_words(chosen).items())
    return [Text(line, style="dim")] if line else []


def note_lines(notes: Sequence[str]) -> list[RenderableType]:
    """A line for each note, below an empty one."""
    return [Text(), *(Text(f"note: {printable(note, 1000)}") for note in notes)] if notes else []


def tables(
    title: str,
    rows: Mapping[str, Row],
    totals: Mapping[str, Row],
    most: int,
    width: int,
    names: Sequence[str] | None = None,
) -> list[RenderableType]:
    """One table, or several below each other with the same rows if one would be wider than `width`.

    Args:
        title: heading of the names of rows.
        rows, totals: by name.
        most: largest number of rows.
        width: columns of text.
        names: the columns in their order; None: the main ones in the usual order.
    """
    everything = [*totals.values(), *rows.values()]
    if names is None:
        names = columns(everything)
        names = [name for name in names if name not in _DETAILS] or names
    high, low, left_out = extremes(rows, leading(names, everything), most)
    lines: list[_Line] = [_Line(printable(name), rows[name]) for name in high]
    if left_out:
        lines.append(_Line(f"and {left_out:,} more in --out", {}, "dim", is_row=False))
    lines += [_Line(printable(name), rows[name]) for name in low]
    lines += [_Line(name, row, "bold") for name, row in totals.items()]
    widths = [max(cell_len(name), *(cell_len(line.cell(name)) for line in lines)) for name in names]
    first = max(cell_len(title), *(cell_len(line.name) for line in lines))
    # Long names are folded, so that they do not take the space of the numbers.
    first = min(first, max(12, width // 3, width - sum(taken + _GAP for taken in widths)))
    parts: list[RenderableType] = []
    while names:
        ends = accumulate(taken + _GAP for taken in widths)
        fitting = max(1, sum(end <= width - first for end in ends))
        parts += [Text(), _table(title, first, names[:fitting], widths[:fitting], lines)]
        names, widths = names[fitting:], widths[fitting:]
    return parts


def _table(title: str, first: int, names: Sequence[str], widths: Sequence[int], lines: Sequence[_Line]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    table.add_column(Text(title), width=first, overflow="fold")
    for name, taken in zip(names, widths, strict=True):
        table.add_column(Text(name), width=taken, no_wrap=True, justify="right")
    for line in lines:
        table.add_row(Text(line.name), *(Text(line.cell(name)) for name in names), style=line.style)
    return table
