"""An audit as text of at most 80 columns."""

from __future__ import annotations

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from trackmill.pipeline.audit.advice import advice, facts, share
from trackmill.pipeline.audit.run import Audit
from trackmill.pipeline.audit.totals import SCORE_BINS, Tally
from trackmill.pipeline.console.output import clean
from trackmill.pipeline.storage.credentials import redact

WIDTH = 80
_BAR = 18
_LABEL = 14
_CLASS = 17
_CONSOLE = Console(width=WIDTH)


def audit_lines(audit: Audit, url: str, most_classes: int = 20) -> list[Text]:
    """The whole report.

    Args:
        audit: what was found.
        url: of the data set.
        most_classes: rows of the table by class.
    """
    lines = [Text(f"negatives of {clean(redact(url), 200)}", style="bold")]
    lines += _wrapped(f"{audit.name}: {audit.note}")
    for label, text in facts(audit):
        first, *rest = _wrap(text, WIDTH - _LABEL)
        lines.append(Text(f"{label:<{_LABEL}}{first}"))
        lines += [Text(" " * _LABEL + line) for line in rest]
    if audit.totals.rows:
        lines += [Text(""), *_class_table(audit, most_classes), Text(""), *_score_table(audit)]
    if hints := advice(audit):
        lines += [Text(""), Text("hints (rules of thumb, not from training: look before you act)", style="bold")]
        for hint in hints:
            first, *rest = _wrap(hint, WIDTH - 2)
            lines += [Text(f"- {first}"), *(Text(f"  {line}") for line in rest)]
    return lines


def _class_table(audit: Audit, most: int) -> list[Text]:
    totals = audit.totals
    classes = totals.by_number()
    head = f"{'class':<{_CLASS}}{'negatives':>10}{'share':>7}{'score':>6}{'proposal':>9}{'kept':>9}{'persist':>8}"
    lines = [Text(f"{head}{'move':>7}{'near':>7}", style="bold")]
    for label, tally in classes[:most]:
        lines.append(Text(_class_row(clean(label, 200), tally, totals.rows)))
    if len(classes) > most:
        rest = sum(int(tally.rows.sum()) for _, tally in classes[most:])
        lines.append(Text(f"… and {len(classes) - most:,} more classes with {rest:,} ({share(rest, totals.rows)})"))
    lines += _wrapped(
        "score: median, to 0.05; proposal: overlap a stored one; kept: by the trainer; of those, "
        "persist, move: in clips, near: perhaps show an annotated object"
    )
    return lines


def _class_row(label: str, tally: Tally, all_rows: int) -> str:
    if cell_len(label) > _CLASS - 1:
        label = set_cell_size(label, _CLASS - 2) + "…"
    rows, kept, in_clips = (int(values.sum()) for values in (tally.rows, tally.kept, tally.in_clips))
    return (
        f"{set_cell_size(label, _CLASS)}{rows:>10,}{share(rows, all_rows):>7}{tally.median_score:>6.2f}"
        f"{share(int(tally.on_proposal.sum()), rows):>9}{kept:>9,}{share(int(tally.persistent.sum()), in_clips):>8}"
        f"{share(int(tally.moving.sum()), in_clips):>7}{share(int(tally.near.sum()), kept):>7}"
    )


def _score_table(audit: Audit) -> list[Text]:
    """A histogram, and what a threshold at the beginning of each bin would leave."""
    totals = audit.totals
    rows = totals.everything.rows
    filled = np.flatnonzero(rows)
    head = (
        f"{'score':<7}{'':<{_BAR}}{'negatives':>11}{'from there':>12}{'kept/frame':>12}{'persist':>9}{'proposal':>10}"
    )
    lines = [Text(head, style="bold")]
    for number in range(int(filled[0]), int(filled[-1]) + 1):
        count, left = int(rows[number]), totals.at_least(number)
        bar = "█" * round(_BAR * count / int(rows.max())) or ("▏" if count else "")
        lines.append(
            Text(
                f"{number / SCORE_BINS:<7.2f}{bar:<{_BAR}}{count:>11,}{left['rows']:>12,}"
                f"{left['kept'] / max(1, totals.frames):>12.1f}{share(left['persistent'], left['in_clips']):>9}"
                f"{share(left['on_proposal'], left['rows']):>10}"
            )
        )
    lines += _wrapped("from there, and right of it: what a threshold at this score would leave")
    return lines


def _wrapped(text: str) -> list[Text]:
    return [Text(line, style="dim") for line in _wrap(text, WIDTH)]


def _wrap(text: str, width: int) -> list[str]:
    # By columns and not by characters, of which some take two.
    return [line.plain.rstrip() for line in Text(clean(text, 2000)).wrap(_CONSOLE, width)] or [""]
