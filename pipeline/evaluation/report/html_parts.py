"""What the HTML pages of evaluation share: tables, bars, what columns mean, and the environment of templates."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trackmill.pipeline.evaluation.report.report import Row
from trackmill.pipeline.evaluation.report.table import MAIN, columns, extremes, format_number, leading, printable

MAX_BARS = 60
"""Largest number of bars; the table has all rows."""

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


def render(template: str, **values: Any) -> str:
    """A page as HTML: the template with values, and the script that sorts tables, allowed by its hash."""
    environment = Environment(
        loader=PackageLoader("trackmill.pipeline.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    script_hash = base64.b64encode(hashlib.sha256(_SORT.encode()).digest()).decode()
    return environment.get_template(template).render(script=Markup(_SORT), script_hash=script_hash, **values)


def percent(value: float | int | None) -> float:
    """Length of a bar in percent."""
    return round(min(100.0, max(0.0, float(value or 0))), 2)


def table_of(
    title: str, rows: Mapping[str, Row], total: Row | None = None, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """A table with a row a name.

    Args:
        title: heading of the names.
        rows: by name.
        total: the last row.
        names: the columns in their order, all of them shown; None: all in the usual order, the details hidden.
    """
    everything = [*rows.values(), *([total] if total else [])]
    main = set(MAIN if names is None else names)
    names = columns(everything) if names is None else names
    lead = leading(names, everything)

    def cells(row: Row) -> list[dict[str, Any]]:
        return [
            {
                "text": format_number(row.get(name)),
                "value": "" if row.get(name) is None else f"{row[name]:.6g}",
                "bar": percent(row.get(name)) if name == lead else None,
                "detail": name not in main,
            }
            for name in names
        ]

    return {
        "title": title,
        "names": [(printable(name), MEANINGS.get(name, ""), name not in main) for name in names],
        "rows": [(printable(name), cells(row)) for name, row in rows.items()],
        "total": cells(total) if total else None,
        "has_details": any(name in main for name in names) and any(name not in main for name in names),
    }


def bars_of(rows: Mapping[str, Row], lead: str) -> dict[str, Any] | None:
    """One bar a row, from the best to the worst by the score `lead`; None for less than two."""
    scored = {name: row for name, row in rows.items() if row.get(lead) is not None}
    if len(scored) < 2:
        return None
    ranked = sorted(scored, key=lambda name: -float(scored[name][lead] or 0))
    high, low, left_out = extremes({name: scored[name] for name in ranked}, lead, MAX_BARS)
    parts = [part for part in _PARTS.get(lead, ()) if any(row.get(part) is not None for row in scored.values())]

    def bar(name: str) -> dict[str, Any]:
        row = scored[name]
        marks = [
            (part, i, percent(row[part]), format_number(row[part]))
            for i, part in enumerate(parts)
            if row.get(part) is not None
        ]
        return {"name": printable(name), "text": format_number(row[lead]), "width": percent(row[lead]), "marks": marks}

    return {
        "score": printable(lead),
        "parts": parts,
        "high": [bar(name) for name in high],
        "low": [bar(name) for name in low],
        "left_out": left_out,
    }
