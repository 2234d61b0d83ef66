"""One line of CrowdHuman as annotations of its picture, every field checked."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import MAX_OBJECTS, required, shown
from trackmill.pipeline.sources.amodal import check_reach
from trackmill.schemas.boxes import Boxes, clip_boxes, from_xywh
from trackmill.schemas.media import Annotations

_KEYS = {"full": "fbox", "visible": "vbox"}


def crowdhuman_annotations(
    line: dict[str, Any], height: int, width: int, box: Literal["full", "visible"], where: str, *, amodal: bool
) -> Annotations:
    """People of one picture, and regions to ignore: people that are marked so, and what is tagged `mask` (crowds, and
    what only looks like people).

    Args:
        line: the parsed JSON.
        height, width: size of the decoded picture.
        box: which box of each.
        where: file and line, for the errors.
        amodal: keep boxes as annotated where they leave the picture.

    Raises:
        BadItem: a field is missing, of the wrong type or out of range; names the box and the field.
    """
    rows = required(line, "gtboxes", list, where)
    if len(rows) > MAX_OBJECTS:
        raise BadItem(f"{where}: {len(rows)} boxes, more than the {MAX_OBJECTS} that a picture may have")
    boxes: list[list[float]] = []
    ids: list[int] = []
    ignore: list[list[float]] = []
    for number, row in enumerate(rows):
        place = f"{where}: gtboxes[{number}]"
        sides = _box(row, _KEYS[box], place)
        if _is_person(row, place):
            boxes.append(sides)
            ids.append(number)
        else:
            ignore.append(sides)
    xyxy = _xyxy(boxes)
    if amodal:
        check_reach(xyxy, where)
    return Annotations(
        boxes=xyxy if amodal else clip_boxes(xyxy, height, width),
        ids=ids,
        scores=[1.0] * len(ids),
        masks=[None] * len(ids),
        ignore=clip_boxes(_xyxy(ignore), height, width),
    )


def _is_person(row: dict[str, Any], place: str) -> bool:
    tag = required(row, "tag", str, place)
    if tag not in ("person", "mask"):
        raise BadItem(f"{place}: 'tag' should be person or mask, found {shown(tag)}")
    extra = row.get("extra", {})
    if not isinstance(extra, dict):
        raise BadItem(f"{place}: 'extra' should be an object, found {shown(extra)}")
    ignored = extra.get("ignore", 0)
    if isinstance(ignored, list | dict) or ignored not in (0, 1):
        raise BadItem(f"{place}: 'extra.ignore' should be 0 or 1, found {shown(ignored)}")
    return tag == "person" and not ignored


def _box(row: Any, key: str, place: str) -> list[float]:
    box = required(row, key, list, place)
    numbers = len(box) == 4 and all(isinstance(side, int | float) and not isinstance(side, bool) for side in box)
    # Whole numbers of any length are numbers to JSON, but no sides of a box.
    if not numbers or not all(abs(side) < 1e30 and math.isfinite(side) for side in box) or min(box[2:]) < 0:
        raise BadItem(f"{place}: {key!r} should be [x, y, width, height], found {shown(box)}")
    return [float(side) for side in box]


def _xyxy(boxes_xywh: list[list[float]]) -> Boxes:
    return from_xywh(np.array(boxes_xywh, np.float64).reshape(-1, 4))
