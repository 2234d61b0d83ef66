"""Annotations of one picture out of a COCO file: fetched by their byte ranges, every field checked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.segmentations import read_segmentation
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import MAX_OBJECTS, confidence, fetch_bytes, shown, whole_number
from trackmill.pipeline.media.rle import crop_rle, crop_runs
from trackmill.pipeline.sources.amodal import check_reach
from trackmill.pipeline.sources.json_walk import MAX_VALUE_BYTES
from trackmill.schemas.boxes import Boxes, clip_boxes, from_xywh
from trackmill.schemas.masks import CroppedMask, mask_box, parse_counts
from trackmill.schemas.media import Annotations

_GAP_BYTES = 16 << 10
"""Ranges no further apart are fetched in one request."""

_MOST_AT_ONCE = 16 << 20


def fetch_records(
    uri: str, ranges: Sequence[tuple[int, int, int]], picture: int | str, checksum: int
) -> list[dict[str, Any]]:
    """The annotations of a picture, in the order of the file.

    Args:
        uri: of the file.
        ranges: offset, length and place in the list of each, in the order of the file.
        picture: the id that all of them must have.
        checksum: sum of the CRC-32 of each.

    Raises:
        BadItem: not the bytes that were there when the work was planned, or not valid JSON.
        OSError: could not be fetched.
    """
    if len(ranges) > MAX_OBJECTS:
        raise BadItem(f"{uri}: {len(ranges)} annotations, more than the {MAX_OBJECTS} that a picture may have")
    records, broken = [], ""
    for group in _grouped(ranges):
        begin, end = group[0][0], group[-1][0] + group[-1][1]
        data = fetch_bytes(uri, begin, end - begin, max_bytes=MAX_VALUE_BYTES + _MOST_AT_ONCE)
        for offset, length, number in group:
            where = f"{uri}: annotations[{number}]"
            piece = data[offset - begin : offset - begin + length]
            checksum -= zlib.crc32(piece)
            try:
                record = orjson.loads(piece)
            except orjson.JSONDecodeError as error:
                broken = broken or f"{where}: not valid JSON: {error}"
                continue
            if not isinstance(record, dict) or record.get("image_id") != picture:
                broken = broken or f"{where}: is not of this picture"
            records.append(record)
    if checksum:
        raise BadItem(
            f"{uri}: was changed after the work was planned; run again with --only-quarantined, which looks at it anew"
        )
    if broken:
        raise BadItem(broken)
    return records


def coco_annotations(
    records: Sequence[tuple[int, dict[str, Any]]], height: int, width: int, where: str, *, amodal: bool
) -> Annotations:
    """Boxes, ids and masks of one picture; what is marked `iscrowd` is a region to ignore.

    A box that is missing is that of the mask. Where an annotation of the picture has no `id`, all are numbered by their
    place in the file.

    Args:
        records: place in the file's list, and the parsed JSON, of each annotation.
        height, width: size of the decoded picture.
        where: the file, for the errors.
        amodal: keep boxes as annotated where they leave the picture.

    Raises:
        BadItem: a field is missing, of the wrong type or out of range; names the annotation and the field.
    """
    boxes: list[list[float]] = []
    ids: list[int] = []
    scores: list[float] = []
    masks: list[CroppedMask | None] = []
    ignore: list[list[float]] = []
    unnumbered = any(record.get("id") is None for _, record in records)
    for number, record in records:
        place = f"{where}: annotations[{number}]"
        crowd = record.get("iscrowd", 0)
        if isinstance(crowd, list | dict) or crowd not in (0, 1, None):
            raise BadItem(f"{place}: 'iscrowd' should be 0 or 1, found {shown(crowd)}")
        if crowd:
            box, _ = _shape(record, height, width, place, with_mask=False)
            ignore += [box] if box else []
            continue
        box, mask = _shape(record, height, width, place, with_mask=True)
        if box is None:
            continue  # a mask without a pixel
        identity = record.get("id")
        boxes.append(box)
        masks.append(mask)
        ids.append(number if unnumbered else whole_number(identity, f"{place}: 'id'"))
        score = record.get("score")
        scores.append(1.0 if score is None else confidence(score, f"{place}: 'score'"))
    if len(set(ids)) != len(ids):
        twice = next(identity for place, identity in enumerate(ids) if identity in ids[:place])
        raise BadItem(f"{where}: two annotations of this picture have the id {twice}")
    xyxy = _xyxy(boxes)
    if amodal:
        check_reach(xyxy, where)
    return Annotations(
        boxes=xyxy if amodal else clip_boxes(xyxy, height, width),
        ids=ids,
        scores=scores,
        masks=masks,
        ignore=clip_boxes(_xyxy(ignore), height, width),
    )


def _grouped(ranges: Sequence[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    groups: list[list[tuple[int, int, int]]] = []
    for each in ranges:
        last = groups[-1] if groups else None
        near = last is not None and 0 <= each[0] - (last[-1][0] + last[-1][1]) <= _GAP_BYTES
        if last is not None and near and each[0] + each[1] - last[0][0] <= _MOST_AT_ONCE:
            last.append(each)
        else:
            groups.append([each])
    return groups


def _shape(
    record: dict[str, Any], height: int, width: int, place: str, *, with_mask: bool
) -> tuple[list[float] | None, CroppedMask | None]:
    """Box `xywh` and mask; no box where there is only a mask without a pixel."""
    segmentation, box = record.get("segmentation"), record.get("bbox")
    mask = None
    if segmentation and (with_mask or box is None):
        mask = _mask(segmentation, height, width, f"{place}: 'segmentation'")
    if box is None:
        if not segmentation:
            raise BadItem(f"{place}: has neither 'bbox' nor 'segmentation'")
        if mask is None:
            return None, None
        x0, y0, x1, y1 = mask_box(mask)
        return [x0, y0, x1 - x0, y1 - y0], mask
    numbers = (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(side, int | float) and not isinstance(side, bool) for side in box)
    )
    if not numbers or not all(abs(side) < 1e30 and math.isfinite(side) for side in box) or min(box[2:]) < 0:
        raise BadItem(f"{place}: 'bbox' should be [x, y, width, height], found {shown(box)}")
    return [float(side) for side in box], mask


def _mask(segmentation: Any, height: int, width: int, where: str) -> CroppedMask | None:
    if not isinstance(segmentation, list):
        return crop_rle(segmentation, height, width, where)
    # Some polygons of COCO are points and lines: nothing to fill.
    polygons = [each for each in segmentation if not isinstance(each, list) or len(each) >= 6]
    if not polygons:
        return None
    try:
        rle = read_segmentation(polygons, height, width, where)
    except BadTracks as error:
        raise BadItem(str(error)) from None
    return crop_runs(parse_counts(rle["counts"]), height)


def _xyxy(boxes_xywh: list[list[float]]) -> Boxes:
    return from_xywh(np.array(boxes_xywh, np.float64).reshape(-1, 4))
