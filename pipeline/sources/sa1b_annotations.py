"""The JSON of one SA-1B picture as annotations, every field checked."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import MAX_OBJECTS, confidence, required, shown, whole_number
from trackmill.pipeline.media.rle import crop_rle
from trackmill.schemas.boxes import clip_boxes, from_xywh
from trackmill.schemas.masks import CroppedMask
from trackmill.schemas.media import Annotations

_MOST_DIGITS = 20
_OFFICIAL = re.compile(r"^sa_(\d+)$", re.IGNORECASE)


def sa1b_annotations(document: dict[str, Any], height: int, width: int, where: str) -> Annotations:
    """Boxes, ids, scores (`predicted_iou`, else 1) and masks of one picture.

    Args:
        document: the parsed JSON.
        height, width: size of the decoded picture.
        where: what the errors should name.

    Raises:
        BadItem: a field is missing, of the wrong type or out of range; names the annotation and the field.
    """
    boxes: list[list[float]] = []
    ids: list[int] = []
    scores: list[float] = []
    masks: list[CroppedMask | None] = []
    records = required(document, "annotations", list, where)
    if len(records) > MAX_OBJECTS:
        raise BadItem(f"{where}: {len(records)} annotations, more than the {MAX_OBJECTS} that a picture may have")
    for position, record in enumerate(records):
        place = f"{where}: annotation {position}"
        identity = whole_number(required(record, "id", (int, float), place), f"{place}: 'id'")
        place = f"{where}: annotation {position} (id {identity})"
        boxes.append(_box(record, place))
        ids.append(identity)
        score = record.get("predicted_iou")
        scores.append(1.0 if score is None else confidence(score, f"{place}: 'predicted_iou'"))
        segmentation = record.get("segmentation")
        masks.append(None if segmentation is None else crop_rle(segmentation, height, width, place))
    if len(set(ids)) != len(ids):
        raise BadItem(f"{where}: two annotations have the same id")
    xyxy = from_xywh(np.array(boxes, np.float64).reshape(-1, 4))
    return Annotations(boxes=clip_boxes(xyxy, height, width), ids=ids, scores=scores, masks=masks)


def check_picture(document: dict[str, Any], picture: str, height: int, width: int, where: str) -> None:
    """Make sure that annotations are those of this picture, by what their `image` says; what is left out is no matter.

    Args:
        document: the parsed JSON.
        picture: URI or member name of the picture.
        height, width: size of the decoded picture.
        where: what the errors should name.

    Raises:
        BadItem: `image` states another name, number or size; says which and how to mend it.
    """
    image = document.get("image")
    if not isinstance(image, dict):
        return
    stem = _stem(picture)
    stated = image.get("file_name")
    if isinstance(stated, str) and stated and _stem(stated).casefold() != stem.casefold():
        raise BadItem(
            f"{where}: its JSON belongs to another picture: image.file_name is {shown(stated)}; put the right JSON "
            "there, or mend file_name if only the picture was renamed"
        )
    number, stated = _OFFICIAL.match(stem), image.get("image_id")
    if isinstance(stated, str) and stated.isdecimal():
        stated = int(stated[:_MOST_DIGITS])
    if number and isinstance(stated, int | float) and stated != int(number[1]):
        raise BadItem(
            f"{where}: its JSON belongs to another picture: image.image_id is {stated}; put the right JSON there, or "
            "mend image_id"
        )
    for key, value in (("height", height), ("width", width)):
        if isinstance(image.get(key), int | float) and image[key] != value:
            raise BadItem(
                f"{where}: its JSON says {key} {image[key]}, the picture has {value}: it belongs to another picture, "
                "or the picture was scaled without it"
            )


def _stem(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _box(record: dict[str, Any], place: str) -> list[float]:
    box = required(record, "bbox", list, place)
    numbers = len(box) == 4 and all(isinstance(side, int | float) and not isinstance(side, bool) for side in box)
    if not numbers or not all(math.isfinite(side) for side in box) or box[2] < 0 or box[3] < 0:
        raise BadItem(f"{place}: 'bbox' should be [x, y, width, height], found {shown(box)}")
    return [float(side) for side in box]
