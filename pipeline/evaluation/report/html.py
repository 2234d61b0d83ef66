"""Writes the HTML page: one self-contained file with the scores and the moments where tracking went wrong.

The page fetches nothing. Its only script sorts tables; the content security policy allows it by its hash, so no other
script runs, whatever names a track file holds.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import nullcontext
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trackmill.pipeline.evaluation.report.moments import worst_first
from trackmill.pipeline.evaluation.report.pictures import Frames, NoPicture
from trackmill.pipeline.evaluation.report.plots import curves_plot, draw_moment, timeline_plot
from trackmill.pipeline.evaluation.report.report import Moment, Report, Row
from trackmill.pipeline.evaluation.report.table import (
    MAIN,
    columns,
    counted,
    extremes,
    format_number,
    headings,
    leading,
    printable,
    settings_in_words,
)
from trackmill.pipeline.storage.publish import publish_bytes

MAX_MOMENTS = 24
MAX_BARS, MAX_PLOTS = 60, 60
"""Largest numbers of sequences that are drawn; the table has all of them."""

_CURVES = ("HOTA", "DetA", "AssA")
"""Scores whose curves are drawn, if a report has them."""
_PARTS = {
    "HOTA": ("DetA", "AssA"),
    "TETA": ("LocA", "AssocA", "ClsA"),
    "mHOTA": ("mMOTA", "mIDF1"),
    "AP": ("AP50", "AP75"),
    "MOTA": ("IDF1",),
}
"""Scores that are marked on the bar of a leading score: its parts, or related ones."""

MEANINGS = {
    "HOTA": "higher order tracking accuracy: geometric mean of DetA and AssA, averaged over 19 overlap thresholds",
    "DetA": "detection accuracy: matched objects among matched, missed and false ones",
    "AssA": "association accuracy: how well whole tracks agree, averaged over the matches",
    "LocA": "localisation accuracy",
    "HOTA.LocA": "localisation accuracy as HOTA defines it: mean overlap of the matches",
    "MOTA": "1 - (missed + false + identity switches) / ground-truth objects",
    "MOTP": "mean overlap of the matches",
    "IDSW": "identity switches",
    "Frag": "fragmentations: how often the tracking of an object starts anew after a gap",
    "IDF1": "share of objects that carry the right identity, by the best match of whole tracks",
    "IDP": "precision of IDF1",
    "IDR": "recall of IDF1",
    "TETA": "tracking-every-thing accuracy: mean of LocA, AssocA and ClsA",
    "AssocA": "association accuracy of TETA, whatever the class",
    "ClsA": "classification accuracy of TETA",
    "mHOTA": "HOTA, averaged over the classes",
    "mMOTA": "MOTA, averaged over the classes",
    "mIDF1": "IDF1, averaged over the classes",
    "mTETA": "TETA, averaged over the classes",
    "mMOTP": "MOTP, averaged over the classes",
    "AP": "average precision of tracks, over ten overlap thresholds .50 to .95",
    "AP50": "average precision of tracks at overlap .50",
    "AP75": "average precision of tracks at overlap .75",
    "AR": "average recall of tracks, over ten overlap thresholds",
    "MT": "objects tracked in more than 80 % of their frames",
    "PT": "objects tracked in 20 to 80 % of their frames",
    "ML": "objects tracked in less than 20 % of their frames",
    "MT%": "share of the objects that are tracked in more than 80 % of their frames",
    "ML%": "share of the objects that are tracked in less than 20 % of their frames",
    "HOTA(0)": "HOTA at the loosest overlap threshold, .05",
    "LocA(0)": "mean overlap of the matches at the loosest threshold, .05",
    "Rcll": "recall: matched objects among all of the ground truth",
    "Prcn": "precision: matched objects among all predictions",
    "FAF": "false alarms per frame, a number, not a percentage",
    "TP": "matched objects",
    "FN": "missed objects",
    "FP": "false objects",
}

# Without scripts the tables keep the order of the file.
_SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      const sign = down === (column > 0) ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const compare = (a, b) => column === 0 ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
      body.append(...[...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        return (x === "") - (y === "") || sign * compare(x, y);
      }));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}
"""


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
    environment = Environment(
        loader=PackageLoader("trackmill.pipeline.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    names = columns([report.metrics])
    lead = leading(_all_columns(report), [report.metrics, *report.sequences.values()])
    shown = [name for name in names if name in MAIN] or names
    return environment.get_template("report.html.j2").render(
        title=printable(report.benchmark),
        headings=headings(report),
        figures=[_figure(name, report.metrics[name]) for name in shown],
        sequences=_table("sequence", report.sequences, report.metrics),
        classes=_table("class", report.classes, None) if len(report.classes) > 1 else None,
        bars=_bars(report, lead),
        plots=_plots(report, lead),
        split=_split(report),
        settings=list(settings_in_words(report.settings).items()),
        notes=[printable(note, 1000) for note in report.notes],
        moments=_moments(report, frames),
        num_moments=len(report.moments),
        has_switches=report.metrics.get("IDSW"),
        with_frames=frames is not None,
        meanings=[(name, MEANINGS[name]) for name in _all_columns(report) if name in MEANINGS],
        script=Markup(_SORT),
        script_hash=base64.b64encode(hashlib.sha256(_SORT.encode()).digest()).decode(),
    )


def _all_columns(report: Report) -> list[str]:
    return columns([report.metrics, *report.sequences.values(), *report.classes.values()])


def _figure(name: str, value: float | int | None) -> dict[str, Any]:
    is_ratio = isinstance(value, float) and name != "FAF"
    return {
        "name": printable(name),
        "title": MEANINGS.get(name, ""),
        "text": f"{value:.2f}" if isinstance(value, float) else format_number(value),
        "width": _percent(value) if is_ratio else None,
    }


def _percent(value: float | int | None) -> float:
    """Length of a bar in percent."""
    return round(min(100.0, max(0.0, float(value or 0))), 2)


def _table(title: str, rows: dict[str, Row], total: Row | None) -> dict[str, Any]:
    everything = [*rows.values(), *([total] if total else [])]
    names = columns(everything)
    lead = leading(names, everything)

    def cells(row: Row) -> list[dict[str, Any]]:
        return [
            {
                "text": format_number(row.get(name)),
                "value": "" if row.get(name) is None else f"{row[name]:.6g}",
                "bar": _percent(row.get(name)) if name == lead else None,
                "detail": name not in MAIN,
            }
            for name in names
        ]

    return {
        "title": title,
        "names": [(printable(name), MEANINGS.get(name, ""), name not in MAIN) for name in names],
        "rows": [(printable(name), cells(row)) for name, row in rows.items()],
        "total": cells(total) if total else None,
        "has_details": any(name in MAIN for name in names) and any(name not in MAIN for name in names),
    }


def _bars(report: Report, lead: str) -> dict[str, Any] | None:
    """One bar a sequence, from the best to the worst."""
    scored = {name: row for name, row in report.sequences.items() if row.get(lead) is not None}
    if len(scored) < 2:
        return None
    ranked = sorted(scored, key=lambda name: -float(scored[name][lead] or 0))
    high, low, left_out = extremes({name: scored[name] for name in ranked}, lead, MAX_BARS)
    parts = [part for part in _PARTS.get(lead, ()) if any(row.get(part) is not None for row in scored.values())]

    def bar(name: str) -> dict[str, Any]:
        row = scored[name]
        marks = [
            (part, i, _percent(row[part]), format_number(row[part]))
            for i, part in enumerate(parts)
            if row.get(part) is not None
        ]
        return {"name": printable(name), "text": format_number(row[lead]), "width": _percent(row[lead]), "marks": marks}

    return {
        "score": printable(lead),
        "parts": parts,
        "high": [bar(name) for name in high],
        "low": [bar(name) for name in low],
        "left_out": left_out,
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
        return [(kind, format_number(row.get(name)), _percent(row.get(name))) for kind, row in rows.items()]

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
