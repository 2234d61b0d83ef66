"""The card of a data set: a README.md that says what is inside, how it was made, how to read it and what to mind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from trackmill.pipeline.shards.front_matter import CLIPS, PICTURES, front_matter, mixed_shards
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.totals import COUNTS, Totals
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

_DATASETS = """
Hugging Face's `datasets` (4.7 or later) reads pictures and clips as configurations of their own:

```python
import datasets

rows = datasets.load_dataset(ROOT, "{kind}", split="train", streaming=True)
```
"""


def write_card(layout: Layout, config: Mapping[str, Any], totals: Totals) -> None:
    """Write `README.md` beside the data; the same inputs give the same bytes.

    Args:
        layout: of the data set.
        config: as in `config.json`: the sections of a `MineConfig`, and `fingerprint`.
        totals: of the data set.

    Raises:
        OSError: could not be written.
    """
    publish_bytes(layout.card, data_card(config, totals).encode())


def data_card(config: Mapping[str, Any], totals: Totals) -> str:
    """The card as Markdown; arguments as in `write_card`."""
    proposer = str(config.get("proposer", "unknown"))
    fingerprint = str(config.get("fingerprint") or totals.fingerprint or "none")
    sections = [
        front_matter(totals),
        "# Mined with Trackmill\n\nFrames with class-agnostic proposals, annotated objects where the source has them, "
        "and pseudo-negatives: proposals that overlap no annotated object.\n",
        "## What is inside\n\n" + _table(("", "count"), _totals(totals)),
        "### Sources\n\n" + _table(("source", "samples"), _ranked(totals.sources)),
        "### Licences\n\n" + _table(("licence", "samples"), _ranked(totals.licenses)) + "\n" + _UNKNOWN_LICENCE,
    ]
    settings = {k: v for k, v in config.items() if k not in ("run", "forecast", "fingerprint") and v not in ({}, None)}
    others = {"graph", "annotations", "sam"} - {proposer}
    settings = {name: value for name, value in settings.items() if name not in others}
    sections += [
        f"## How it was made\n\nProposer {escape(proposer)}, fingerprint {escape(fingerprint)}. Two runs with one "
        "fingerprint give the same bytes for the same plan.\n\n"
        + _table(("setting", "value"), flatten(settings).items()),
        _READ + _hugging_face(totals),
        _limits(proposer, amodal=bool(dict(config.get("read") or {}).get("amodal"))),
        "## Set aside\n\n" + _set_aside(totals),
    ]
    return "\n".join(sections)


def _hugging_face(totals: Totals) -> str:
    """How `datasets` reads it, and what it does not."""
    mixed = mixed_shards(totals)
    found = ((PICTURES, totals.pictures), (CLIPS, totals.clips))
    kinds = [name for name, shards in found if shards.keys() - {*mixed}]
    text = _DATASETS.format(kind=kinds[0]) if kinds else ""
    if mixed:
        shown = ", ".join(escape(name) for name in mixed[:3]) + (", ..." if len(mixed) > 3 else "")
        text += (
            f"\nShards that hold pictures and clips are in neither, {len(mixed)} of {totals.shards}: {shown}. "
            "`trackmill filter ROOT --output NEW` writes them apart.\n"
        )
    return text


def escape(text: object) -> str:
    """Untrusted text for Markdown: one line, no markup, no HTML, no credentials, at most 200 characters."""
    line = "".join(c if c.isprintable() else " " for c in scrub(str(text)))
    line = line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"
    return _MARKS.sub(r"\\\1", line).replace("://", ":\u200b//")  # a zero-width space keeps URLs from becoming links


_UNKNOWN_LICENCE = (
    "Where the licence is unknown, the input did not state one; find out before you publish anything made from it.\n"
)


def _totals(totals: Totals) -> list[tuple[str, int]]:
    counts = [("shards", totals.shards), ("bytes", totals.num_bytes), ("samples", totals.statuses["ok"])]
    counts += [(name, totals.stored[name]) for name in COUNTS]
    return [
        *counts,
        ("items quarantined", totals.statuses["quarantined"]),
        ("items skipped", totals.statuses["skipped"]),
    ]


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


def _set_aside(totals: Totals) -> str:
    if not totals.reasons:
        return "No item was quarantined.\n"
    reasons: Counter[str] = Counter()
    for name, count in totals.reasons.items():
        reasons[name or "unknown"] += count
    table = _table(("error", "items"), _ranked(reasons))
    return table + "\nEach item with its reason: rows of `manifest/items.parquet` whose status is `quarantined`.\n"


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _table(head: tuple[str, str], lines: Iterable[tuple[object, object]]) -> str:
    shown = [f"| {escape(name)} | {f'{v:,}' if type(v) is int else escape(v)} |" for name, v in lines]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|--:|", *shown]) + "\n"
