"""Writes the HTML page: one self-contained file with the scores and the moments where tracking went wrong.

The page fetches nothing. Its only script sorts tables; the content security policy allows it by its hash, so no other
script runs, whatever names a track file holds.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.evaluation.report.html_parts import MEANINGS, bars_of, percent, render, table_of
from trackmill.pipeline.evaluation.report.moments import worst_first
from trackmill.pipeline.evaluation.report.pictures import Frames, NoPicture
from trackmill.pipeline.evaluation.report.plots import curves_plot, draw_moment, timeline_plot
from trackmill.pipeline.evaluation.report.report import Moment, Report
from trackmill.pipeline.evaluation.report.table import (
    MAIN,
    columns,
    extremes,
    format_number,
    headings,
    leading,
    printable,
    settings_in_words,
)
from trackmill.pipeline.storage.publish import publish_bytes

MAX_MOMENTS = 24
MAX_PLOTS = 60
"""Largest number of sequences whose plots are drawn; the table has all of them."""

_CURVES = ("HOTA", "DetA", "AssA")
"""Scores whose curves are drawn, if a report has them."""


def write_html(report: Report, url: str, frames: str | None = None) -> int:
    """Write the page of a report.

    Args:
        report: what to show.
        url: the HTML file to write, anywhere.
        frames: URL of the benchmark's pictures or videos, see `pictures.Frames`; without it, or where a picture cannot
            be read, a moment's boxes are drawn without one.

    Returns:
        Length of the file in bytes.

    Raises:
        OSError: the file cannot be written.
    """
    html = page(report, frames).encode("utf-8", "replace")
    publish_bytes(url, html)
    return len(html)


def page(report: Report, frames: str | None = None) -> str:
    """The page as HTML; arguments as in `write_html`."""
    names = columns([report.metrics])
    lead = leading(_all_columns(report), [report.metrics, *report.sequences.values()])
    shown = [name for name in names if name in MAIN] or names
    return render(
        "report.html.j2",
        title=printable(report.benchmark),
        headings=headings(report),
        figures=[_figure(name, report.metrics[name]) for name in shown],
        sequences=table_of("sequence", report.sequences, report.metrics),
        classes=table_of("class", report.classes) if len(report.classes) > 1 else None,
        bars=bars_of(report.sequences, lead),
        plots=_plots(report, lead),
        split=_split(report),
        settings=list(settings_in_words(report.settings).items()),
        notes=[printable(note, 1000) for note in report.notes],
        moments=_moments(report, frames),
        num_moments=len(report.moments),
        has_switches=report.metrics.get("IDSW"),
        with_frames=frames is not None,
        meanings=[(name, MEANINGS[name]) for name in _all_columns(report) if name in MEANINGS],
    )


def _all_columns(report: Report) -> list[str]:
    return columns([report.metrics, *report.sequences.values(), *report.classes.values()])


def _figure(name: str, value: float | int | None) -> dict[str, Any]:
    is_ratio = isinstance(value, float) and name != "FAF"
    return {
        "name": printable(name),
        "title": MEANINGS.get(name, ""),
        "text": f"{value:.2f}" if isinstance(value, float) else format_number(value),
        "width": percent(value) if is_ratio else None,
    }


def _plots(report: Report, lead: str) -> dict[str, Any] | None:
    """Curves and timeline of each sequence that has any."""
    drawn = {name: row for name, row in report.sequences.items() if report.curves.get(name) or name in report.timelines}
    if not drawn:
        return None
    high, low, left_out = extremes(drawn, lead, MAX_PLOTS)
    given = list(dict.fromkeys(score for name in drawn for score in report.curves.get(name, {})))
    scores = [score for score in _CURVES if score in given] or given[: len(_CURVES)]

    def plot(name: str) -> dict[str, Any]:
        shown, timeline = printable(name), report.timelines.get(name)
        curves = {score: curve for score, curve in report.curves.get(name, {}).items() if score in scores}
        return {
            "name": shown,
            "value": f"{printable(lead)} {format_number(drawn[name].get(lead))}" if lead else "",
            "curves": curves_plot(curves, shown) if curves else None,
            "timeline": timeline_plot(timeline, shown) if timeline else None,
        }

    return {
        "cards": [plot(name) for name in (*high, *low)],
        "left_out": left_out,
        "scores": [printable(score) for score in scores],
        "has_timelines": bool(report.timelines),
    }


def _split(report: Report) -> list[tuple[str, str, list[tuple[str, str, float]]]] | None:
    """The ratios of all, base and novel classes."""
    if report.base is None and report.novel is None:
        return None
    rows = {"all": report.metrics, "base": report.base or {}, "novel": report.novel or {}}
    names = [name for name in columns(rows.values()) if any(isinstance(row.get(name), float) for row in rows.values())]
    not_main = not any(name in MAIN for name in names)

    def kinds(name: str) -> list[tuple[str, str, float]]:
        return [(kind, format_number(row.get(name)), percent(row.get(name))) for kind, row in rows.items()]

    return [(printable(name), MEANINGS.get(name, ""), kinds(name)) for name in names if name in MAIN or not_main]


def _moments(report: Report, frames: str | None) -> list[dict[str, Any]]:
    """Cards of the worst moments, with pictures where there are any."""
    moments = worst_first(report.moments)[:MAX_MOMENTS]
    only = next(iter(report.sequences)) if len(report.sequences) == 1 else ""
    cards: dict[int, dict[str, Any]] = {}
    with Frames(frames, only) if frames else nullcontext() as pictures:
        # In the order of frames, because a video is read forwards.
        for place in sorted(range(len(moments)), key=lambda i: (moments[i].sequence, moments[i].frame)):
            cards[place] = _card(moments[place], pictures)
    return [cards[place] for place in range(len(moments))]


def _card(moment: Moment, pictures: Frames | None) -> dict[str, Any]:
    picture, missing = None, ""
    if pictures is not None:
        try:
            picture = pictures.picture(moment)
        except NoPicture as error:
            missing = printable(error, 300)
    count = {state: sum(d.state == state for d in (*moment.gt, *moment.predictions)) for state in ("missed", "false")}
    return {
        "sequence": printable(moment.sequence),
        "frame": f"{moment.frame + 1:,}",
        "label": printable(moment.label),
        "switches": moment.switches,
        "svg": draw_moment(moment, picture),
        "missing": missing,
        "count": f"{counted(len(moment.gt), 'object')}, {count['missed']:,} missed, {count['false']:,} false",
    }
