"""The sheet of an audit: one HTML file, complete in itself, with the figures and the negatives that deserve a look.

Each negative is shown as a crop with what is around it, in its whole frame, and in other frames of its chain. Nothing
is fetched and no script runs; a content security policy in the file forbids both.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from trackmill.pipeline.audit.advice import advice, facts
from trackmill.pipeline.audit.run import Audit
from trackmill.pipeline.audit.shortlist import KINDS, Candidate, place_of
from trackmill.pipeline.audit.totals import SCORE_BINS
from trackmill.pipeline.inspect.selection import Unreadable, evenly_spaced
from trackmill.pipeline.inspect.thumbnails import Mark, data_uri, jpeg_bytes, shown
from trackmill.pipeline.media.drawing.palette import NEGATIVE, PROPOSAL, RGB, css, identity_colour
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import Dataset, read_sample
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.boxes import iou_matrix

CROP_WIDTH, FRAME_WIDTH, STRIP_WIDTH = 260, 420, 110
"""Pixels across the thumbnails: the negative, its frame, and the same negative in other frames."""
STRIP_FRAMES = 5
_SMALLEST_CROP = 32
_MOST_CLASSES = 40
_MOST_OBJECTS = 60


def write_sheet(
    audit: Audit,
    dataset: Dataset,
    url: str,
    sidecar: str = "",
    progress: Callable[[int], None] | None = None,
    unreadable: Unreadable | None = None,
) -> int:
    """Write the sheet.

    Args:
        audit: what it shows.
        dataset: that was audited.
        url: the HTML file to write, anywhere.
        sidecar: name of the sidecar with the negatives, for the commands on the sheet; empty for the records.
        progress: called with 1 for each negative that was drawn.
        unreadable: what could not be read, which the sheet names.

    Returns:
        Length of the file in bytes.

    Raises:
        OSError: the file could not be written.
    """
    environment = Environment(
        loader=PackageLoader("trackmill.pipeline.audit", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    cards = _cards(audit, dataset, sidecar, progress)
    totals = audit.totals
    html = environment.get_template("sheet.html.j2").render(
        title=shown(redact(dataset.url)),
        name=shown(audit.name),
        note=shown(audit.note),
        facts=[(label, shown(text)) for label, text in facts(audit)],
        advice=[shown(line) for line in advice(audit)],
        unreadable=[shown(line) for line in unreadable.lines()] if unreadable else [],
        totals=totals,
        classes=[(shown(label), tally) for label, tally in totals.by_number()[:_MOST_CLASSES]],
        num_classes=len(totals.classes),
        scores=_scores(audit),
        sections=[(kind, title, what, cards[kind]) for kind, (_, title, what) in KINDS.items() if cards[kind]],
        colours={"negative": css(NEGATIVE), "proposal": css(PROPOSAL)},
        identities=[css(identity_colour(i)) for i in range(6)],
    )
    data = html.encode("utf-8", "replace")
    publish_bytes(url, data)
    return len(data)


def _scores(audit: Audit) -> list[dict[str, Any]]:
    """One row for each bin of the score that matters, with the width of its bar in percent."""
    totals = audit.totals
    rows = totals.everything.rows
    most = max(int(rows.max()), 1)
    begin = int(np.flatnonzero(rows)[0]) if rows.any() else SCORE_BINS
    return [
        {"score": number / SCORE_BINS, "count": int(rows[number]), "percent": 100 * int(rows[number]) / most}
        | {"left": totals.at_least(number)}
        for number in range(begin, SCORE_BINS)
    ]


def _cards(
    audit: Audit, dataset: Dataset, sidecar: str, progress: Callable[[int], None] | None
) -> dict[str, list[dict[str, Any]]]:
    """Cards of each kind; a sample is read once, whatever it shows."""
    by_key: dict[str, list[Candidate]] = defaultdict(list)
    for candidates in audit.shown.values():
        for candidate in candidates:
            by_key[candidate.key].append(candidate)
    made: dict[tuple[str, int, int], dict[str, Any]] = {}
    for key, candidates in by_key.items():
        fault, sample = "", None
        try:
            sample = read_sample(dataset, key)
        except (BadShard, OSError) as error:
            fault = str(error)
        for candidate in candidates:
            about = _about(candidate, dataset, sidecar)
            try:
                pictures = _pictures(sample, candidate) if sample is not None else {"fault": shown(fault)}
            except BadShard as error:  # a JPEG that cannot be decoded
                pictures = {"fault": shown(error)}
            made[place_of(candidate)] = {"fault": "", **about, **pictures}
            if progress:
                progress(1)
    return {kind: [made[place_of(candidate)] for candidate in shown_] for kind, shown_ in audit.shown.items()}


def _about(candidate: Candidate, dataset: Dataset, sidecar: str) -> dict[str, Any]:
    words = ["trackmill", "inspect", redact(dataset.url), "--key", candidate.key]
    words += ["--sidecar", sidecar] if sidecar else []
    chain = candidate.chain
    x0, y0, x1, y1 = candidate.box
    return {
        "key": candidate.key,
        "label": shown(candidate.label),
        "score": f"{candidate.score:.2f}",
        "frame": candidate.frame,
        "num_frames": candidate.num_frames,
        "size": f"{x1 - x0:.0f} × {y1 - y0:.0f} px",
        "object_iou": f"{candidate.object_iou:.2f}" if candidate.annotated else "frame not annotated",
        "proposal_iou": f"{candidate.proposal_iou:.2f}",
        "inside": candidate.inside,
        "lapsed": candidate.lapsed,
        "persists": f"{len(chain)} of {candidate.num_frames} frames, moves {chain.travel:.1f} lengths"
        if len(chain) > 1
        else "",
        "command": shown(shlex.join([*words, "--overlay", "sample.png"])),
    }


def _pictures(sample: Sample, candidate: Candidate) -> dict[str, Any]:
    stored = sample.record.stored
    picture = Image.fromarray(sample.image(candidate.frame))
    width = min(FRAME_WIDTH, stored.width)
    frame = picture.resize((width, max(1, round(stored.height * width / stored.width))), Image.Resampling.LANCZOS)
    chain = candidate.chain
    others = [i for i in evenly_spaced(len(chain), STRIP_FRAMES) if chain.frames[i] != candidate.frame]
    strip = []
    for number in others if len(chain) > 1 else []:
        view = _crop(Image.fromarray(sample.image(chain.frames[number])), chain.boxes[number], STRIP_WIDTH)
        strip.append({"caption": f"frame {chain.frames[number]}", **view})
    marks = _marks(sample, candidate)
    return {
        "crop": _crop(picture, candidate.box, CROP_WIDTH) | {"marks": marks},
        "whole": {
            "picture": data_uri("jpeg", jpeg_bytes(frame)),
            "view": f"0 0 {stored.width} {stored.height}",
            "place": (0, 0, stored.width, stored.height),
            "marks": marks,
        },
        "strip": strip,
    }


def _crop(picture: Image.Image, box: tuple[float, float, float, float], width: int) -> dict[str, Any]:
    """A square around a box, twice as long as its longer side, cut at the border of the frame."""
    x0, y0, x1, y1 = box
    half = max(x1 - x0, y1 - y0, _SMALLEST_CROP / 2)
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(0, int(middle_x - half)), max(0, int(middle_y - half))
    right = min(picture.width, max(left + 1, round(middle_x + half)))
    bottom = min(picture.height, max(top + 1, round(middle_y + half)))
    crop = picture.crop((left, top, right, bottom))
    scale = min(1.0, width / max(crop.size))
    small = crop.resize((max(1, round(crop.width * scale)), max(1, round(crop.height * scale))))
    return {
        "picture": data_uri("jpeg", jpeg_bytes(small)),
        "view": f"{left} {top} {right - left} {bottom - top}",
        "place": (left, top, right - left, bottom - top),
        "marks": [_mark(list(box), NEGATIVE, "the negative", "negative")],
    }


def _marks(sample: Sample, candidate: Candidate) -> list[Mark]:
    """The annotated objects of the frame, the proposal that overlaps the negative most, and the negative on top."""
    record = sample.record.frames[candidate.frame]
    marks = []
    if record.objects is not None:
        for box, identity in list(zip(record.objects.boxes, record.objects.ids))[:_MOST_OBJECTS]:
            marks.append(_mark(box, identity_colour(identity), f"annotated object {identity}", "object"))
    if candidate.proposal_iou > 0:
        boxes = np.array(record.proposals.boxes, np.float32).reshape(-1, 4)
        best = int(iou_matrix(np.array([candidate.box], np.float32), boxes)[0].argmax())
        title = f"proposal {best}: IoU {candidate.proposal_iou:.2f}"
        marks.append(_mark(record.proposals.boxes[best], PROPOSAL, title, "proposal"))
    title = f"{shown(candidate.label)}: score {candidate.score:.2f}"
    return [*marks, _mark(list(candidate.box), NEGATIVE, title, "negative")]


def _mark(box: list[float], colour: RGB, title: str, kind: str) -> Mark:
    x0, y0, x1, y1 = box
    return Mark(round(x0, 1), round(y0, 1), round(x1 - x0, 1), round(y1 - y0, 1), css(colour), title, kind)
