"""A status as lines for people."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trackmill.pipeline.console.output import clean
from trackmill.pipeline.console.words import duration, readable_bytes
from trackmill.pipeline.status.state import CheckpointSeen, Quarantine, Status

_HOLDERS = 5
"""Processes that are named."""


def lines(status: Status) -> Iterator[str]:
    """What people read, one thing a line."""
    yield f"{status.kind} {clean(status.url)}: {status.state} ({clean(status.title)})"
    yield _row("done", _done(status))
    if status.state != "done" or status.pace.best is not None:
        yield _row("rate", _rate(status))
    if status.quarantine is not None:
        yield from _quarantine(status.quarantine, "parts" if status.kind == "sidecar" else "receipts")
    if status.numbers:
        shown = [f"{name} {_number(name, value)}" for name, value in status.numbers.items()]
        yield _row("numbers", ", ".join(shown))
    for place, checkpoint in enumerate(status.checkpoints):
        yield _row("checkpoint" if not place else "", _checkpoint(checkpoint))
    yield _row("held by", "; ".join(_holders(status)) or "nobody")
    yield _row("last sign", _signs(status))
    for note in status.notes:
        yield _row("note", clean(note))
    yield _row("next", clean(status.next, 2000))


def _row(name: str, text: str) -> str:
    return f"  {name:<12}{text}"


def _done(status: Status) -> str:
    share = status.done / status.total if status.total else 0.0
    text = f"{status.done:,} of {status.total:,} {status.things} ({math.floor(1000 * share) / 10:g}%)"
    if status.items_done is not None and status.items is not None:
        about = "" if status.items_exact else "about "
        text += f", {about}{status.items_done:,} of {status.items:,} items"
    return f"{text}; {status.left:,} {status.things} left"


def _rate(status: Status) -> str:
    pace = status.pace
    if pace.best is None:
        return "not known yet: too little was finished"
    per = status.items / status.total if status.items and status.total else 0
    parts = []
    for rate, over in ((pace.recent, f"over the last {duration(pace.recent_s)}"), (pace.overall, "overall")):
        if rate is not None:
            over = "over the last steps" if status.kind == "training run" and rate is pace.recent else over
            over = "with evaluation and saving" if status.kind == "training run" and rate is not pace.recent else over
            items = f" ({_short(rate * per)} items/s)" if per else ""
            parts.append(f"{_short(rate)} {status.things}/s{items} {over}")
    text = ", ".join(parts)
    if pace.pauses:
        text += f", without {pace.pauses} pauses of {duration(pace.paused_s)} together"
    if status.eta_s is not None:
        text += f"; ETA {duration(status.eta_s)}" + ("" if status.state == "going" else " once it goes on")
    return text


def _quarantine(found: Quarantine, things: str) -> Iterator[str]:
    whole = found.receipts == found.of
    where = (
        f"in all {found.of:,} {things}"
        if whole
        else f"in {found.receipts:,} of {found.of:,} {things} (--all reads all)"
    )
    yield _row("quarantined", f"{found.quarantined:,} of {found.items:,} items, {found.share:.2%}, {where}")
    for reason in found.reasons:
        source_id, why = reason.examples[0] if reason.examples else ("", "")
        such = f", such as {clean(source_id, 200)}: {clean(why, 200)}" if source_id else ""
        yield _row("", f"{reason.count:,} {clean(reason.error_class, 80)}{such}")


def _checkpoint(checkpoint: CheckpointSeen) -> str:
    age = (
        f"written {duration(checkpoint.age_s)} ago" if math.isfinite(checkpoint.age_s) else "written at a time unknown"
    )
    state = f"not whole: {clean(checkpoint.wrong)}" if checkpoint.wrong else "whole by its lengths"
    return f"step {checkpoint.step:,}, {age}, {readable_bytes(checkpoint.num_bytes)}, {state}"


def _holders(status: Status) -> Iterator[str]:
    # Of a thousand workers a few are enough; the dead come last.
    shown = sorted(status.holders, key=lambda holder: (not holder.alive, holder.beat_s))[:_HOLDERS]
    if len(status.holders) > len(shown):
        yield f"{len(status.holders):,} processes, {sum(each.alive for each in status.holders):,} of them alive"
    for holder in shown:
        beat = f"its last beat is {duration(holder.beat_s)} old" if math.isfinite(holder.beat_s) else "no beat is known"
        yield f"{clean(holder.who)}, since {clean(holder.since)}; {beat}" + ("" if holder.alive else ": it is dead")


def _signs(status: Status) -> str:
    if not status.signs:
        return "none"
    newest = status.signs[0]
    text = f"{duration(newest.age_s)} ago ({newest.what})"
    progress = status.last_progress_s
    if not newest.progress and progress is not None:
        text += f"; work was last finished {duration(progress)} ago"
    return text + ("" if status.clock == "store" else f"; by the clock of {status.clock}")


def _number(name: str, value: float) -> str:
    if name == "memory_bytes":
        return readable_bytes(value)
    return f"{value:.4g}"


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
