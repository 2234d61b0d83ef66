"""A data set as text for people: shards, totals, what was set aside, the numbers, one sample."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trackmill.pipeline.console.output import raw_stream
from trackmill.pipeline.console.rich_console import RichConsole
from trackmill.pipeline.inspect.statistics import Histogram, Statistics
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.shards.totals import COUNTS, Totals
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.names import printable

_MAX_SHARDS = 40
_MAX_QUARANTINED = 20
_MAX_BOXES = 12
_BAR = 30


def print_tables(parts: Sequence[RenderableType], stream: TextIO | None = None) -> None:
    """Print: in colour on a terminal, as plain text of 160 columns elsewhere, whatever the environment asks for."""
    stream = raw_stream(stream or sys.stdout)
    if stream.isatty():
        console = RichConsole(file=stream, highlight=False)
    else:
        console = RichConsole(file=stream, highlight=False, force_terminal=False, color_system=None, width=160)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def cell(text: object, limit: int = 200) -> Text:
    """Untrusted text: no markup, no control codes, at most `limit` characters."""
    clean = printable(str(text))
    return Text(clean if len(clean) <= limit else clean[: limit - 1] + "…")


def dataset_parts(dataset: Dataset) -> list[RenderableType]:
    """Title, table of shards with totals, counts by status, and why items were set aside."""
    shards, totals = dataset.shards, dataset.totals
    known = COUNTS if dataset.recorded is not None else ("frames",)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("shard", overflow="fold")
    for name in ("MB", "samples", *known):
        table.add_column(name, justify="right")
    for shard in shards[:_MAX_SHARDS]:
        counts: Counter[str] = Counter()
        for row in dataset.rows_of(shard.name):
            counts.update({"samples": 1, **{name: getattr(row, name) for name in COUNTS}})
        table.add_row(cell(shard.name), *_numbers(shard.num_bytes, counts, known))
    if len(shards) > _MAX_SHARDS:
        table.add_row(Text(f"… and {len(shards) - _MAX_SHARDS:,} more", style="dim"))
    everything = Counter({"samples": totals.statuses["ok"], **totals.stored})
    total = _numbers(sum(shard.num_bytes for shard in shards), everything, known)
    table.add_row(f"total: {len(shards):,} shards", *total, style="bold")
    parts: list[RenderableType] = [Text(redact(dataset.url), style="bold"), table]
    if dataset.recorded is not None:
        parts.append(_statuses(totals))
    else:
        parts.append(Text("no receipts: tars alone, counts of objects and proposals are not known"))
    parts += [cell(f"warning: {what}", 400) for _, what in dataset.damaged]
    return parts + _quarantine(totals)


def statistics_parts(statistics: Statistics) -> list[RenderableType]:
    """Every number of `Statistics`, histograms as bars."""
    read = f"{statistics.samples_read:,} of {statistics.samples_stored:,} samples read"
    kinds = f"{statistics.images:,} pictures, {statistics.clips:,} clips, {statistics.frames:,} frames"
    duplicates = (
        f"near duplicates  {statistics.near_duplicates:.1%} of the proposals overlap an earlier one by IoU > 0.9"
    )
    weights = (
        f"bytes per sample  median {statistics.bytes_per_sample_median:,}, largest {statistics.bytes_per_sample_max:,}"
    )
    parts: list[RenderableType] = [Text(f"{read}: {kinds}", style="bold")]
    for title, histogram in (
        ("objects per frame", statistics.objects_per_frame),
        ("proposals per frame", statistics.proposals_per_frame),
        ("negatives per frame", statistics.negatives_per_frame),
        ("object area / frame", statistics.object_areas),
        ("proposal area / frame", statistics.proposal_areas),
        ("proposal scores", statistics.proposal_scores),
    ):
        parts += _bars(title, histogram)
    parts += [Text(duplicates), Text(weights)]
    for title, counter in (
        ("refused", statistics.refused),
        ("quarantined", statistics.quarantined),
        ("sources", statistics.sources),
        ("licences", statistics.licenses),
        ("stored sizes", statistics.sizes),
    ):
        entries = ", ".join(f"{name} {count:,}" for name, count in counter.most_common(12))
        parts.append(cell(f"{title}  {entries or 'none'}", 600))
    return parts


def sample_parts(sample: Sample) -> list[RenderableType]:
    """One sample in text: where it came from, and its first frames with their best proposals."""
    record = sample.record
    origin, stored = record.origin, record.stored
    about = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in (
        ("key", record.key),
        ("kind", f"{record.kind} of {len(record.frames)}" if record.clip else record.kind),
        ("shard", f"{sample.shard}, {sample.size:,} bytes at {sample.offset:,}"),
        ("uri", redact(origin.uri)),
        ("source", f"{origin.source}, licence {origin.license}"),
        ("size", f"{stored.width} x {stored.height} of {origin.width} x {origin.height}"),
        ("proposer", f"{record.proposer}, fingerprint {record.fingerprint}"),
    ):
        about.add_row(Text(name, style="dim"), cell(value))
    parts: list[RenderableType] = [about]
    for frame in record.frames[:_MAX_BOXES]:
        time = "" if frame.time_s is None else f" at {frame.time_s:.2f} s"
        objects = "not annotated" if frame.objects is None else f"objects {frame.objects.ids}"
        proposals = frame.proposals
        boxes = [f"{s:.2f} [{', '.join(f'{v:g}' for v in b)}]" for s, b in zip(proposals.scores, proposals.boxes)][:3]
        refused = sum(proposals.refused.values())
        counts = f"{len(proposals.boxes)} proposals, {len(proposals.negatives)} negatives, {refused} refused"
        parts.append(cell(f"frame {frame.index}{time}: {objects}; {counts}; best {' '.join(boxes) or 'none'}", 400))
    if len(record.frames) > _MAX_BOXES:
        parts.append(Text(f"… and {len(record.frames) - _MAX_BOXES} frames more"))
    return parts


def _numbers(num_bytes: int, counts: Counter[str], known: Sequence[str]) -> list[str]:
    return [f"{num_bytes / 1e6:,.1f}", *(f"{counts[name]:,}" for name in ("samples", *known))]


def _statuses(totals: Totals) -> Text:
    counts = totals.statuses
    return Text(f"{totals.items:,} items: " + ", ".join(f"{counts[s]:,} {s}" for s in ("ok", "quarantined", "skipped")))


def _quarantine(totals: Totals) -> list[RenderableType]:
    count = totals.statuses["quarantined"]
    if not count:
        return []
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("quarantined", "reason", "uri"):
        table.add_column(name, overflow="fold")
    for row in totals.examples[:_MAX_QUARANTINED]:
        table.add_row(cell(row.error_class), cell(row.reason), cell(redact(row.uri)))
    parts: list[RenderableType] = [table]
    if count > _MAX_QUARANTINED:
        parts.append(Text(f"… and {count - _MAX_QUARANTINED:,} more quarantined"))
    return parts


def _bars(title: str, histogram: Histogram) -> list[Text]:
    most = max([*histogram.counts, 1])
    filled = [number for number, count in enumerate(histogram.counts) if count]
    if not filled:
        return [Text(f"{title}  none")]
    lines = [Text(title, style="bold")]
    for number in range(filled[0], filled[-1] + 1):
        low, high, count = histogram.edges[number], histogram.edges[number + 1], histogram.counts[number]
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        lines.append(Text(f"  {low:>7g} … {high:<7g} {count:>9,} {bar}"))
    return lines
