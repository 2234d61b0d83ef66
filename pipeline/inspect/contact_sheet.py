"""The contact sheet: one HTML file, complete in itself, on which a person sees in a minute what was mined.

Nothing is fetched, and no script runs but the sheet's own: a content security policy in the file forbids the network,
and allows that one script by its hash. Without scripts all is there but the slider and the enlarged pictures.
The file is bounded: so many samples, frames, boxes and rows at most, thumbnails of fixed width, and no further sample
once `max_bytes` are reached.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from trackmill.pipeline.inspect.overlay import More
from trackmill.pipeline.inspect.selection import Unreadable, evenly_spaced, select_rows
from trackmill.pipeline.inspect.thumbnails import Mark, data_uri, jpeg_bytes, shown
from trackmill.pipeline.media.drawing.layers import FAINT, FIRM, Ink, label_map, labels_png
from trackmill.pipeline.media.drawing.palette import NEGATIVE, PROPOSAL, REFUSED, RGB, SIDECAR, css, identity_colour
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import Dataset, read_row
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.shards.totals import EXAMPLES
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.config import flatten
from trackmill.schemas.masks import CroppedMask

PICTURE_WIDTH, STRIP_WIDTH = 640, 400
"""Pixels across a thumbnail; shown smaller in the grid, and still good when it is enlarged."""
STRIP_FRAMES = 8
MAX_BOXES = 150
"""Boxes of one kind that are in the file for a frame, best first; the counts in the caption are of all."""
BEST_BOXES = 30
"""Of them those that are drawn as long as nobody moves the slider, and whose masks are drawn."""
MAX_ROWS = EXAMPLES
LAYERS = [
    ("proposals", "proposals"),
    ("negatives", "negatives"),
    ("objects", "annotated objects, by id"),
    ("refused", "refused"),
]
"""Layers of every sheet, and what their switches say."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One thumbnail: data URIs of the picture and of its masks (may be empty), and the boxes by layer."""

    caption: str
    picture: str
    masks: dict[str, str]
    marks: dict[str, list[Mark]]


def write_contact_sheet(
    dataset: Dataset,
    url: str,
    max_samples: int = 60,
    max_bytes: int = 32 << 20,
    progress: Callable[[int], None] | None = None,
    more: More | None = None,
    unreadable: Unreadable | None = None,
) -> int:
    """Write the sheet of a data set.

    Args:
        dataset: what to show.
        url: the HTML file to write, anywhere.
        max_samples: how many samples, chosen evenly and from every source.
        max_bytes: no further sample is added once the pictures are this large; one sample more is the overshoot.
        progress: called with 1 after each sample.
        more: further boxes of each frame, a layer of their own.
        unreadable: receives shards that are missing or damaged; the sheet names them in place of their pictures.

    Returns:
        Length of the file in bytes.

    Raises:
        BadShard, OSError: no shard could be read, or the file not be written.
    """
    html = contact_sheet(dataset, max_samples, max_bytes, progress, more, unreadable).encode("utf-8", "replace")
    publish_bytes(url, html)
    return len(html)


def contact_sheet(
    dataset: Dataset,
    max_samples: int = 60,
    max_bytes: int = 32 << 20,
    progress: Callable[[int], None] | None = None,
    more: More | None = None,
    unreadable: Unreadable | None = None,
) -> str:
    """The sheet as HTML; arguments as in `write_contact_sheet`. A damaged sample is named in place of its pictures."""
    cards: list[dict[str, Any]] = []
    num_bytes = num_read = 0
    unreadable, bad_samples = unreadable or Unreadable(), Unreadable()
    for row in select_rows(dataset.stored, max_samples):
        if num_bytes >= max_bytes:
            break
        fault = unreadable.reasons.get(row.shard, "")
        if not fault:
            try:
                cards.append(_card(read_row(dataset, row), more))
                num_read += 1
            except BadShard as error:  # of this sample; others of its shard may be whole
                fault = str(error)
                bad_samples.add(row.shard, error)
            except OSError as error:
                unreadable.add(row.shard, error)
                fault = unreadable.reasons[row.shard]
        if fault:
            cards.append({"key": row.key, "uri": shown(redact(row.uri)), "fault": shown(fault), "views": []})
        num_bytes += sum(len(v.picture) + sum(map(len, v.masks.values())) for v in cards[-1]["views"])
        if progress:
            progress(1)
    # Clips first, each in a line of its own: a line of pictures before one would end in a hole.
    cards.sort(key=lambda card: card.get("kind") != "clip")
    unreadable.raise_if_nothing(num_read + len(bad_samples.reasons))
    environment = Environment(
        loader=PackageLoader("trackmill.pipeline.inspect", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    script = (files("trackmill.pipeline.inspect") / "contact_sheet.js").read_text("utf-8")
    return environment.get_template("contact_sheet.html.j2").render(
        title=shown(redact(dataset.url)),
        cards=cards,
        figures=_figures(dataset),
        settings=_settings(dataset),
        quarantined=_quarantined(dataset),
        num_quarantined=dataset.totals.statuses["quarantined"],
        num_stored=len(dataset.stored),
        max_boxes=MAX_BOXES,
        best=BEST_BOXES,
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        layers=[*LAYERS, *([("sidecar", "sidecar")] if more is not None else []), ("masks", "masks")],
        colours={
            "sidecar": css(SIDECAR),
            "proposals": css(PROPOSAL),
            "negatives": css(NEGATIVE),
            "refused": css(REFUSED),
        },
        identities=[css(identity_colour(i)) for i in range(6)],
    )


def _card(sample: Sample, more: More | None) -> dict[str, Any]:
    record = sample.record
    count = len(record.frames)
    views = evenly_spaced(count, STRIP_FRAMES)
    scores = [score for frame in record.frames for score in frame.proposals.scores]
    refused: Counter[str] = Counter()
    for frame in record.frames:
        refused.update(frame.proposals.refused)
    return {
        "key": record.key,
        "uri": shown(redact(record.origin.uri)),
        "fault": "",
        "kind": record.kind,
        "source": shown(record.origin.source),
        "license": shown(record.origin.license),
        "size": f"{record.stored.width} × {record.stored.height}",
        "original": f"{record.origin.width} × {record.origin.height}",
        "width": record.stored.width,
        "height": record.stored.height,
        "num_frames": count,
        "label_fps": record.clip.label_fps if record.clip else 0,
        "annotated": any(frame.objects is not None for frame in record.frames),
        "num_objects": sum(len(frame.objects.boxes) for frame in record.frames if frame.objects),
        "num_identities": len({i for frame in record.frames if frame.objects for i in frame.objects.ids}),
        "num_proposals": len(scores),
        "num_negatives": sum(len(frame.proposals.negatives) for frame in record.frames),
        "scores": f"{min(scores):.2f} – {max(scores):.2f}" if scores else "",
        "refused": [(shown(reason), number) for reason, number in refused.most_common()],
        "views": [_view(sample, number, PICTURE_WIDTH if count == 1 else STRIP_WIDTH, more) for number in views],
    }


def _view(sample: Sample, number: int, width: int, more: More | None) -> Thumbnail:
    record, stored = sample.record.frames[number], sample.record.stored
    proposals, objects = record.proposals, record.objects
    negatives = set(proposals.negatives)
    width = min(width, stored.width)
    scale = width / stored.width
    thumbnail = Image.fromarray(sample.image(number)).resize(
        (width, max(1, round(stored.height * scale))), Image.Resampling.LANCZOS
    )

    def mark(box: list[float], colour: RGB, title: str, label: str = "") -> Mark:
        x0, y0, x1, y1 = box
        return Mark(round(x0, 1), round(y0, 1), round(x1 - x0, 1), round(y1 - y0, 1), css(colour), title, label)

    def proposal(i: int, colour: RGB, name: str) -> Mark:
        score, area = proposals.scores[i], proposals.areas[i]
        return mark(proposals.boxes[i], colour, f"{name} {i}: score {score:.2f}, {area:,} pixels")

    kept = [i for i in range(len(proposals.boxes)) if i not in negatives]
    marks = {
        "refused": [
            mark(box, REFUSED, f"refused: {shown(reason)}")
            for box, reason in list(zip(proposals.refused_boxes, proposals.refused_reasons))[:MAX_BOXES]
        ],
        "proposals": [proposal(i, PROPOSAL, "proposal") for i in kept[:MAX_BOXES]],
        "negatives": [proposal(i, NEGATIVE, "negative") for i in proposals.negatives[:MAX_BOXES]],
        "objects": [
            mark(box, identity_colour(identity), f"object {identity}: score {score:.2f}", str(identity))
            for box, identity, score in list(zip(objects.boxes, objects.ids, objects.scores))[:MAX_BOXES]
        ]
        if objects
        else [],
    }
    if more is not None:
        extra = more(sample, number)
        marks["sidecar"] = [
            mark(box, colour, shown(title), shown(tag))
            for box, colour, title, tag in list(
                zip(extra.boxes.tolist(), extra.colours, extra.titles, extra.tags or [""] * len(extra.boxes))
            )[:MAX_BOXES]
        ]
    masks = sample.proposal_masks(number)
    drawn = {*kept[:BEST_BOXES], *proposals.negatives[:BEST_BOXES]}
    layers: dict[str, tuple[list[CroppedMask | None], list[RGB], Ink]] = {
        "proposals": (
            [m if i in drawn and i not in negatives else None for i, m in enumerate(masks)],
            [PROPOSAL] * len(masks),
            FAINT,
        ),
        "negatives": (
            [m if i in drawn and i in negatives else None for i, m in enumerate(masks)],
            [NEGATIVE] * len(masks),
            FAINT,
        ),
        "objects": (sample.objects_masks(number), [identity_colour(i) for i in objects.ids] if objects else [], FIRM),
    }
    uris = {name: _mask_uri(sample, number, *layer, thumbnail.width) for name, layer in layers.items()}
    time = "" if record.time_s is None else f" · {record.time_s:.2f} s"
    return Thumbnail(
        caption=f"frame {record.index}{time}",
        picture=data_uri("jpeg", jpeg_bytes(thumbnail)),
        masks={name: uri for name, uri in uris.items() if uri},
        marks=marks,
    )


def _mask_uri(
    sample: Sample, number: int, masks: list[CroppedMask | None], colours: list[RGB], ink: Ink, width: int
) -> str:
    if not any(masks):
        return ""
    stored = sample.record.stored
    try:
        labels = label_map(masks, stored.height, stored.width, width / stored.width)
    except ValueError as error:
        raise BadShard(f"{sample.shard}: {sample.key}.masks.json: a mask of frame {number} {error}") from None
    return data_uri("png", labels_png(labels, colours, ink)) if np.any(labels) else ""


def _figures(dataset: Dataset) -> list[tuple[str, str, int]]:
    """(kind, label, number) for the head of the sheet."""
    totals = dataset.totals
    figures = [("", "samples", totals.statuses["ok"]), ("", "frames", totals.stored["frames"])]
    if dataset.recorded is None:
        return figures
    for name in ("proposals", "negatives", "objects", "refused"):
        figures.append((name, name, totals.stored[name]))
    statuses = totals.statuses
    return [*figures, ("", "quarantined", statuses["quarantined"]), ("", "skipped", statuses["skipped"])]


def _settings(dataset: Dataset) -> list[tuple[str, str]]:
    try:
        config = dataset.config
    except ValueError as error:
        return [("config.json", shown(error))]
    # `parts` is what decides the output; the rest of `config.json` says how the run was made, not what it made.
    parts = config.get("parts")
    described: dict[str, Any] = {
        name: config[name] for name in ("fingerprint", "trackmill", "inputs") if name in config
    }
    described |= parts if isinstance(parts, dict) else {}
    plain = {name: ", ".join(map(str, v)) if isinstance(v, list) else v for name, v in flatten(described).items()}
    return [(shown(name), shown(value)) for name, value in plain.items()]


def _quarantined(dataset: Dataset) -> list[tuple[str, str, str]]:
    bad = dataset.totals.examples[:MAX_ROWS]
    return [(shown(row.error_class), shown(row.reason), shown(redact(row.uri))) for row in bad]
