"""A data set in another format: read shard by shard, written as it comes, its frames the very bytes that are stored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from trackmill.pipeline.datasets.formats.base import MaskForm, Numbers, Target, Writer
from trackmill.pipeline.datasets.formats.boxes import Boxes
from trackmill.pipeline.datasets.formats.coco import Coco, CocoVid
from trackmill.pipeline.datasets.formats.fiftyone import FiftyOne
from trackmill.pipeline.datasets.formats.mot import Cvat, Mot
from trackmill.pipeline.datasets.formats.yolo import Yolo
from trackmill.pipeline.datasets.formats.youtube_vis import YoutubeVis
from trackmill.pipeline.formats.export_note import note_name, part_of
from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import DamagedDocument, publish_document, read_document
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.output_lock import locked
from trackmill.pipeline.storage.publish import remove
from trackmill.pipeline.storage.urls import basename, canonical, dirname, join
from trackmill.schemas.errors import InputError

FORMATS: dict[str, type[Writer]] = {
    "coco": Coco,
    "coco-vid": CocoVid,
    "youtube-vis": YoutubeVis,
    "yolo": Yolo,
    "mot": Mot,
    "cvat": Cvat,
    "fiftyone": FiftyOne,
}
PART = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,39}$")

_HELD = {
    "data": "the data set",
    "boxes": "--boxes",
    "masks": "--masks",
    "min_score": "--min-score",
    "max_samples": "--max-samples",
}
"""What must stay as it is when a part is written again, by its key in the part's note, and how people call it."""


class NothingToWrite(InputError):
    """No sample is left, so no file was written; the text says what was left out."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is to be written.

    Args:
        format: one of `FORMATS`.
        output: folder, any URL.
        boxes: `objects`, `proposals` or the name of a sidecar.
        masks: `auto`: as the format has them; `rle`, `polygon` or `none`.
        part: what this data set is called in there, such as train.
        min_score: boxes below it are left out.
        max_samples: none after so many; None: all.
    """

    format: str
    output: str
    boxes: str = "objects"
    masks: Literal["auto", "rle", "polygon", "none"] = "auto"
    part: str = "train"
    min_score: float = 0.0
    max_samples: int | None = None


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and what was left out, by name."""

    counts: Counter[str]
    left_out: Counter[str]


def export(dataset: Dataset, request: ExportRequest, progress: Callable[[int], None]) -> Exported:
    """Write a data set in another format.

    Args:
        dataset: opened.
        request: how.
        progress: called with the number of samples that are done.

    Raises:
        InputError: the boxes have no identities and the format needs them, it has no such masks, nothing is left, or
            the output holds something else, or this part of it something else.
        BadShard: a shard or a part of the sidecar is damaged.
        OSError: storage failed for good.
    """
    kind = FORMATS[request.format]
    root = canonical(request.output)
    masks = _mask_form(kind, request)
    boxes = Boxes(dataset, request.boxes, masks=masks is not None, min_score=request.min_score)
    if kind.identities and not boxes.identities:
        raise InputError(
            f"--format {request.format} says who is who, and {request.boxes} have no identities: --boxes objects, or "
            "the name of a sidecar that has a column chain, id or track"
        )
    if not PART.match(request.part):
        raise InputError(f"--part {request.part[:60]!r}: a name of letters, digits, _ and -")
    note = join(root, note_name(request.part))
    with locked(root, "export-data"):
        parts = _parts_there(root, request)
        about: dict[str, Any] = {
            "format": request.format,
            "data": redact(dataset.url),
            "boxes": request.boxes,
            "masks": masks or "",
            "min_score": request.min_score,
            "max_samples": request.max_samples,
            "trackmill": version("trackmill"),
        }
        before = parts.get(request.part)
        if before is not None:
            _check_same(root, request.part, before, about)
        classes = _classes_of(parts.values())
        publish_document(note, about | {"complete": False, "classes": list(classes.of)})
        try:
            written = _write(kind, root, request.part, masks, boxes, classes, request.max_samples, progress)
        except NothingToWrite:
            if before is None:
                remove(note)  # with other boxes there may be something
            raise
        done: dict[str, Any] = about | {"complete": True, "classes": list(classes.of)}
        done |= {"counts": dict(written), "left_out": dict(boxes.left_out)}
        publish_document(note, done)
    return Exported(counts=written, left_out=boxes.left_out)


def _write(
    kind: type[Writer],
    root: str,
    part: str,
    masks: MaskForm | None,
    boxes: Boxes,
    classes: Numbers,
    limit: int | None,
    progress: Callable[[int], None],
) -> Counter[str]:
    with Target(root, part) as target:
        writer = kind(target, masks, classes)
        try:
            for sample in boxes.samples(limit):
                if sample is not None and kind.clips_only and not sample.clip:
                    boxes.left_out["pictures, of which this format has none"] += 1
                elif sample is not None:
                    writer.add(sample)
                    writer.counts["samples"] += 1
                progress(1)
            if not writer.counts["samples"]:
                why = "; ".join(f"{count:,} {what}" for what, count in boxes.left_out.items()) or "there are no samples"
                mend = "; --boxes proposals writes what mining proposed, --boxes NAME a sidecar"
                raise NothingToWrite(f"nothing to write: {why} were left out{mend}" if boxes.left_out else why)
            writer.finish()
        finally:
            writer.close()
    return writer.counts


def _mask_form(kind: type[Writer], request: ExportRequest) -> MaskForm | None:
    if request.masks == "none" or (request.masks == "auto" and not (kind.mask_forms and kind.masks_by_themselves)):
        return None
    if request.masks == "auto":
        return kind.mask_forms[0]
    if request.masks not in kind.mask_forms:
        known = " or ".join(kind.mask_forms)
        raise InputError(
            f"--masks {request.masks}: --format {request.format} has " + (f"masks as {known}" if known else "no masks")
        )
    return request.masks


def _parts_there(root: str, request: ExportRequest) -> dict[str, dict[str, Any]]:
    """What is written of the parts that are in a folder already, by their names.

    Raises:
        InputError: there is something in the folder that an export of the same format did not write.
    """
    try:
        files = list_files(root)
    except FileNotFoundError:
        return {}
    here = [file.uri for file in files if dirname(file.uri) == root]
    notes = {part: uri for uri in here if (part := part_of(basename(uri))) is not None}
    if files and not notes:
        raise InputError(f"--output {redact(root)}: there is something in this folder; give one of its own")
    parts = {}
    for name, uri in notes.items():
        try:
            found = read_document(uri)
        except DamagedDocument as error:
            raise InputError(f"{error}; give another folder") from None
        if found.get("format") != request.format:
            raise InputError(f"--output {redact(root)}: holds an export as {found.get('format')}; give another folder")
        parts[name] = found
    return parts


def _check_same(root: str, part: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to write something else into a part: what is there would stay in between, or be replaced.

    Raises:
        InputError: says what the part holds, and what is asked for.
    """
    # Notes of older versions lack some of these.
    changed = [name for name in _HELD if name in before and before[name] != now[name]]
    if changed:
        told = (f"{_HELD[name]} {_shown(before[name])}, now {_shown(now[name])}" for name in changed)
        raise InputError(
            f"--output {redact(root)}: its part {part} was written with {'; '.join(told)}: give --part another name, "
            "or another --output"
        )


def _shown(value: object) -> str:
    return "not given" if value is None else str(value) or "none"


def _classes_of(parts: Iterable[dict[str, Any]]) -> Numbers:
    """The classes of the parts that are there already: in all parts, a number must mean the same class."""
    classes: list[str] = []
    for each in parts:
        own = [str(name) for name in each.get("classes", ())]
        classes = max(classes, own, key=len)  # each part goes on with those of the parts before it
    return Numbers({name: number for number, name in enumerate(classes, 1)})
