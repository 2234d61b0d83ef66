"""The JSON of one SA-1B picture as annotations, every field checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import confidence, required, whole_number
from trackmill.pipeline.media.rle import crop_rle
from trackmill.schemas.boxes import clip_boxes, from_xywh
from trackmill.schemas.masks import CroppedMask
from trackmill.schemas.media import Annotations


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
    for position, record in enumerate(required(document, "annotations", list, where)):
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


def _box(record: dict[str, Any], place: str) -> list[float]:
    box = required(record, "bbox", list, place)
    numbers = len(box) == 4 and all(isinstance(side, int | float) and not isinstance(side, bool) for side in box)
    if not numbers or not all(math.isfinite(side) for side in box) or box[2] < 0 or box[3] < 0:
        raise BadItem(f"{place}: 'bbox' should be [x, y, width, height], found {box!r}")
    return [float(side) for side in box]
