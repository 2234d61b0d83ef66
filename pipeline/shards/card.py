"""The card of a data set: a README.md that says what is inside, how it was made, how to read it and what to mind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import Receipt
from trackmill.pipeline.storage.credentials import scrub
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.config import flatten

_MARKS = re.compile(r"([\\`*_{}\[\]<>#|!~&])")
_MAX_TEXT = 200

_READ = """\
## Reading it

Members are named as WebDataset expects: `KEY.jpg` (a clip: `KEY.f00.jpg`, `KEY.f01.jpg`, ...), `KEY.masks.json`,
`KEY.json`.

```python
import glob, io, json
import webdataset as wds
from PIL import Image

for sample in wds.WebDataset(sorted(glob.glob("shards/*.tar")), shardshuffle=False):
    record = json.loads(sample["json"])
    for frame in record["frames"]:
        extension = frame["member"].split(".", 1)[1]  # "jpg" or "f00.jpg"
        picture = Image.open(io.BytesIO(sample[extension]))
        boxes, negatives = frame["proposals"]["boxes"], frame["proposals"]["negatives"]
    print(sample["__key__"], picture.size, len(boxes), len(negatives))
```

Boxes are `x0, y0, x1, y1` in pixels of the stored frames; divide by `record["stored"]["scale"]` to get back to the
original. `schema.json` describes every field; `manifest/items.parquet` has one row per item, with the byte range of
its sample in its shard. Masks are COCO run lengths cropped to the object; where `proposals` is null in
`KEY.masks.json`, the proposals are the annotated objects.

Look at it with `python jobs/inspect_shards.py ROOT --html sheet.html`; check every byte of it with `--verify`.
"""


def write_card(
    layout: Layout, config: Mapping[str, Any], receipts: Sequence[Receipt], licenses: Mapping[str, int] | None = None
) -> None:
    """Write `README.md` beside the data; the same inputs give the same bytes.

    Args:
        layout: of the data set.
        config: as in `config.json`: the sections of a `MineConfig`, and `fingerprint`.
        receipts: all of them.
        licenses: samples by licence; the receipts do not know them. None leaves the section out.

    Raises:
        OSError: could not be written.
    """
    publish_bytes(layout.card, data_card(config, receipts, licenses).encode())


def data_card(config: Mapping[str, Any], receipts: Sequence[Receipt], licenses: Mapping[str, int] | None = None) -> str:
    """The card as Markdown; arguments as in `write_card`."""
    rows = [row for receipt in receipts for row in receipt.rows]
    stored = [row for row in rows if row.status == "ok"]
    shards = [shard for receipt in receipts for shard in receipt.shards]
    proposer = str(config.get("proposer", "unknown"))
    fingerprint = str(config.get("fingerprint") or (receipts[0].fingerprint if receipts else "none"))
    sections = [
        "# Mined with Trackmill\n\nFrames with class-agnostic proposals, annotated objects where the source has them, "
        "and pseudo-negatives: proposals that overlap no annotated object.\n",
        "## What is inside\n\n" + _table(("", "count"), _totals(rows, stored, shards)),
        "### Sources\n\n" + _table(("source", "samples"), _ranked(row.key.partition("-")[0] for row in stored)),
    ]
    if licenses is not None:
        ranked = sorted(licenses.items(), key=lambda entry: (-entry[1], entry[0]))
        sections.append("### Licences\n\n" + _table(("licence", "samples"), ranked) + "\n" + _UNKNOWN_LICENCE)
    settings = {k: v for k, v in config.items() if k not in ("run", "forecast", "fingerprint") and v not in ({}, None)}
    others = {"graph", "annotations", "sam"} - {proposer}
    settings = {name: value for name, value in settings.items() if name not in others}
    sections += [
        f"## How it was made\n\nProposer {escape(proposer)}, fingerprint {escape(fingerprint)}. Two runs with one "
        "fingerprint give the same bytes for the same plan.\n\n"
        + _table(("setting", "value"), flatten(settings).items()),
        _READ,
        _limits(proposer, amodal=bool(dict(config.get("read") or {}).get("amodal"))),
        "## Set aside\n\n" + _set_aside(rows),
    ]
    return "\n".join(sections)


def escape(text: object) -> str:
    """Untrusted text for Markdown: one line, no markup, no HTML, no credentials, at most 200 characters."""
    line = "".join(c if c.isprintable() else " " for c in scrub(str(text)))
    line = line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"
    return _MARKS.sub(r"\\\1", line).replace("://", ":\u200b//")  # a zero-width space keeps URLs from becoming links


_UNKNOWN_LICENCE = (
    "Where the licence is unknown, the input did not state one; find out before you publish anything made from it.\n"
)


def _totals(rows: Sequence[Any], stored: Sequence[Any], shards: Sequence[Any]) -> list[tuple[str, int]]:
    statuses = Counter(row.status for row in rows)
    totals = [("shards", len(shards)), ("bytes", sum(shard.num_bytes for shard in shards)), ("samples", len(stored))]
    for name in ("frames", "objects", "proposals", "negatives", "refused"):
        totals.append((name, sum(getattr(row, name) for row in stored)))
    return [*totals, ("items quarantined", statuses["quarantined"]), ("items skipped", statuses["skipped"])]


def _limits(proposer: str, *, amodal: bool) -> str:
    lines = [
        "- Proposals are class-agnostic and unchecked: no person has looked at them.",
        "- A negative is a proposal without an annotated object; where the annotation forgot an object, it is wrong.",
        "- Clips hold labels at a low frame rate; the frames between are not stored.",
    ]
    if proposer == "graph":
        lines.insert(0, "- Graph proposals are regions of like colour: mostly *parts* of objects, seldom whole ones.")
    if amodal:
        lines.append(
            "- Boxes of objects are amodal: they may leave the frame, with coordinates below 0 or past its sides."
        )
    return "## Limits\n\n" + "\n".join(lines) + "\n"


def _set_aside(rows: Sequence[Any]) -> str:
    bad = [row for row in rows if row.status == "quarantined"]
    if not bad:
        return "No item was quarantined.\n"
    table = _table(("error", "items"), _ranked(row.error_class or "unknown" for row in bad))
    return table + "\nEach item with its reason: rows of `manifest/items.parquet` whose status is `quarantined`.\n"


def _ranked(names: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(names).items(), key=lambda entry: (-entry[1], entry[0]))


def _table(head: tuple[str, str], lines: Iterable[tuple[object, object]]) -> str:
    shown = [f"| {escape(name)} | {f'{v:,}' if type(v) is int else escape(v)} |" for name, v in lines]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|--:|", *shown]) + "\n"
