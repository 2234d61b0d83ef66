"""The masklets of one SA-V video: per annotated frame and object a run-length mask, every field checked when used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import (
    MAX_OBJECTS,
    check_whole,
    confidence,
    fetch_json,
    required,
    shown,
    whole_number,
)
from trackmill.pipeline.media.rle import crop_rle
from trackmill.pipeline.storage.ranges import Place
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.masks import CroppedMask, mask_box
from trackmill.schemas.media import Annotations

AUTO_ID_OFFSET = 1_000_000
"""Added to the ids of automatic masklets: both files of a video number their objects from zero."""


@dataclass(frozen=True, slots=True)
class Masklets:
    """One annotation file.

    Args:
        where: its URI, for the errors.
        frames: for each annotated frame, the RLE of each object.
        ids: of the objects, made unique over both files.
        stability: for each annotated frame, a score for each object; empty for masklets that people drew.
    """

    where: str
    frames: list[Any]
    ids: list[int]
    stability: list[Any]

    @property
    def num_frames(self) -> int:
        """Number of annotated frames."""
        return len(self.frames)

    @classmethod
    def fetch(cls, where: str | Place, kind: str) -> Masklets:
        """Read `X_manual.json` or `X_auto.json`, and make sure that it states no other video than X.

        Raises:
            BadItem: a key is missing or holds something else.
            OSError: could not be fetched.
        """
        document, uri = fetch_json(where), where if isinstance(where, str) else where.name
        stated = document.get("video_id")
        name = basename(uri.rpartition("#")[2])[: -len(f"_{kind}.json")]
        if isinstance(stated, str) and stated and stated.casefold() != name.casefold():
            raise BadItem(
                f"{uri}: belongs to another video: video_id is {shown(stated)}; put the right JSON there, or mend "
                "video_id if only the files were renamed"
            )
        frames = required(document, "masklet", list, uri)
        stated_ids = required(document, "masklet_id", list, uri)
        if len(stated_ids) > MAX_OBJECTS:
            raise BadItem(f"{uri}: {len(stated_ids)} masklets, more than the {MAX_OBJECTS} that a video may have")
        ids = [whole_number(value, f"{uri}: 'masklet_id'") for value in stated_ids]
        if len(set(ids)) != len(ids):
            raise BadItem(f"{uri}: 'masklet_id' holds an id twice")
        offset = AUTO_ID_OFFSET if kind == "auto" else 0
        check_whole(max(ids, default=0) + offset, f"{uri}: 'masklet_id'")
        stability = document.get("masklet_stability_score")
        # The manual file has one null for each object there instead of a list for each frame.
        scored = isinstance(stability, list) and bool(stability) and isinstance(stability[0], list)
        scores: list[Any] = list(stability or []) if scored else []
        if scored and len(scores) != len(frames):
            raise BadItem(f"{uri}: 'masklet_stability_score' has {len(scores)} frames, 'masklet' {len(frames)}")
        return cls(uri, frames, [offset + value for value in ids], scores)


def read_masklets(masklets: Sequence[Masklets], position: int, height: int, width: int) -> Annotations:
    """The visible objects of annotated frame `position` over all files of a video.

    An object whose mask is empty is not visible and left out; boxes are the tight boxes of the masks.

    Args:
        masklets: the files.
        position: number of the annotated frame (video frame divided by the stride).
        height, width: size of the video.

    Raises:
        BadItem: a mask is broken or made for another size; names file, frame and object.
    """
    ids: list[int] = []
    scores: list[float] = []
    masks: list[CroppedMask] = []
    for file in masklets:
        if position >= file.num_frames:
            continue
        where = f"{file.where}: annotated frame {position}"
        objects = file.frames[position]
        if not isinstance(objects, list) or len(objects) != len(file.ids):
            raise BadItem(f"{where}: 'masklet' should list {len(file.ids)} objects here, one for each 'masklet_id'")
        for number, (identity, segmentation) in enumerate(zip(file.ids, objects)):
            mask = crop_rle(segmentation, height, width, f"{where}, object {number}")
            if mask is not None:
                ids.append(identity)
                scores.append(_score(file, position, number, where))
                masks.append(mask)
    boxes = np.array([mask_box(mask) for mask in masks], np.float32).reshape(-1, 4)
    return Annotations(boxes=boxes, ids=ids, scores=scores, masks=list(masks))


def _score(file: Masklets, position: int, number: int, where: str) -> float:
    if not file.stability:
        return 1.0
    row = file.stability[position]
    if not isinstance(row, list) or number >= len(row):
        raise BadItem(f"{where}: 'masklet_stability_score' has no score for object {number}")
    return 1.0 if row[number] is None else confidence(row[number], f"{where}: 'masklet_stability_score'")
