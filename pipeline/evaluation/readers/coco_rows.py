"""The boxes (or masks) of a TAO or COCO-VID file as columns: checked, limited, and sorted into frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from trackmill.pipeline.evaluation.overlaps import Iou
from trackmill.pipeline.evaluation.readers.coco_index import Index
from trackmill.pipeline.evaluation.tracks import Tracks
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.json_columns import JsonObjects
from trackmill.pipeline.formats.segmentations import read_segmentations

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxRows:
    """N boxes in the order of the files.

    Args:
        numbers: (N,) place of each row in the files, counted through all of them.
        num_absent: rows left out because their `segmentation` is null or empty.
        images: (N,) index of the image.
        ids: (N,) track id, unique within a video only.
        labels: (N,) category id as in the file.
        boxes: (N, 4) `xyxy`; NaN where the file gives only masks.
        scores: (N,), 1 where the file gives none.
        segmentations: N values as in the file; None where boxes are compared.
        parts: number of the first row of each file, and the path of its list.
    """

    numbers: Ints
    num_absent: int
    images: Ints
    ids: Ints
    labels: Ints
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    segmentations: list[Any] | None
    parts: tuple[tuple[int, str], ...]

    def __len__(self) -> int:
        return len(self.images)

    def where(self, row: int) -> str:
        """File and index of a row, for errors."""
        number = int(self.numbers[row])
        begin, path = next(part for part in reversed(self.parts) if part[0] <= number)
        return f"{path}[{number - begin}]"

    def tracks(self, index: Index) -> Ints:
        """(N,) number of the track of each row, different in different videos."""
        videos = index.image_videos[self.images]
        names, ids = np.unique(self.ids, return_inverse=True)
        return videos * max(1, len(names)) + ids


def read_rows(rows: JsonObjects, index: Index, iou: Iou) -> BoxRows:
    """Check and read one list. Where masks are compared, an object without one is absent.

    Raises:
        BadTracks: a value is of the wrong type, missing or unknown; the message gives its key path.
    """
    masks = iou == "mask"
    if masks and len(rows) and not rows.has("segmentation"):
        raise BadTracks(f"{rows.where(0)}: has no 'segmentation'; compare boxes with --iou box")
    boxes = np.full((len(rows), 4), np.nan) if masks and not rows.has("bbox") else rows.boxes()
    segmentations = rows.column("segmentation") if masks else None
    kept = np.arange(len(rows))
    if segmentations is not None:
        kept = np.array([row for row, value in enumerate(segmentations) if value not in (None, [])], np.int64)
        segmentations = [segmentations[row] for row in kept.tolist()]
    ids = rows.integers("instance_id" if rows.has("instance_id") and not rows.has("track_id") else "track_id")
    return BoxRows(
        numbers=kept,
        num_absent=len(rows) - len(kept),
        images=index.images(rows)[kept],
        ids=ids[kept],
        labels=index.labels(rows)[kept],
        boxes=boxes[kept],
        scores=rows.numbers("score")[kept] if rows.has("score") else np.ones(len(kept)),
        segmentations=segmentations,
        parts=((0, rows.path),),
    )


def join_rows(parts: list[BoxRows]) -> BoxRows:
    """Concatenate one or more lists."""
    starts = np.cumsum([0, *(len(part) + part.num_absent for part in parts)]).tolist()
    segmentations = [part.segmentations for part in parts if part.segmentations is not None]
    return BoxRows(
        numbers=np.concatenate([part.numbers + start for part, start in zip(parts, starts)]),
        num_absent=sum(part.num_absent for part in parts),
        images=np.concatenate([part.images for part in parts]),
        ids=np.concatenate([part.ids for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        segmentations=[value for values in segmentations for value in values] if segmentations else None,
        parts=tuple((start, part.parts[0][1]) for start, part in zip(starts, parts)),
    )


def best_places(rows: BoxRows, most: int) -> Ints:
    """(N,) place of each row in the list that remains when each image keeps its `most` best rows; -1 for dropped rows.

    As in the official tools, that list is ordered by the first appearance of each image, and within an image that lost
    a row, by score. `most` 0 keeps the list as it is.
    """
    number = np.arange(len(rows))
    if most == 0 or not len(rows):
        return number
    order = np.lexsort((number, -rows.scores, rows.images))
    counts = np.bincount(rows.images)
    rank = np.empty(len(rows), np.int64)
    rank[order] = number - (np.cumsum(counts) - counts)[rows.images[order]]
    first = np.full(len(counts), len(rows))
    np.minimum.at(first, rows.images, number)
    within = np.where(counts[rows.images] > most, rank, number)
    places = np.empty(len(rows), np.int64)
    places[np.lexsort((within, first[rows.images]))] = number
    return np.where(rank < most, places, -1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """Rows of the chosen videos, sorted by video, time step and place.

    Args:
        tracks: the rows; frames count from 0 in each video.
        places: (N,) place of each row in the file.
        starts: (V + 1,) first row of each video.
    """

    tracks: Tracks
    places: Ints
    starts: Ints

    def of_video(self, number: int) -> Ints:
        """Rows of a video."""
        return np.arange(self.starts[number], self.starts[number + 1])


def sort_rows(rows: BoxRows, labels: Ints, places: Ints, index: Index, chosen: NDArray[np.bool_]) -> Side:
    """Sort rows into the frames of the `chosen` videos (V,), without those whose place is negative.

    Raises:
        BadTracks: an image has an id twice, or a mask is broken.
    """
    kept = np.flatnonzero((places >= 0) & chosen[index.image_videos[rows.images]])
    videos, steps = index.image_videos[rows.images[kept]], index.image_steps[rows.images[kept]]
    order = np.lexsort((places[kept], steps, videos))
    kept, videos = kept[order], videos[order]
    _refuse_twice(rows, kept, index)
    boxes = rows.boxes[kept]
    masks = None
    if rows.segmentations is not None:
        masks = np.empty(len(kept), object)
        masks[:] = _masks(rows, kept, index)
        lacking = np.flatnonzero(np.isnan(boxes).any(axis=1))
        if len(lacking):
            boxes[lacking] = coco.toBbox(masks[lacking].tolist())
            boxes[lacking, 2:] += boxes[lacking, :2]
    tracks = Tracks(
        frames=steps[order],
        ids=rows.ids[kept],
        boxes=boxes,
        labels=index.fold(labels[kept]),
        scores=rows.scores[kept],
        ignored=np.zeros(len(kept), bool),
        masks=masks,
    )
    return Side(tracks=tracks, places=places[kept], starts=np.searchsorted(videos, np.arange(len(chosen) + 1)))


def _refuse_twice(rows: BoxRows, kept: Ints, index: Index) -> None:
    images, ids = rows.images[kept], rows.ids[kept]
    order = np.lexsort((kept, ids, images))
    same = (images[order][1:] == images[order][:-1]) & (ids[order][1:] == ids[order][:-1])
    for place in np.flatnonzero(same)[:1].tolist():
        first, second = kept[order[place]], kept[order[place + 1]]
        raise BadTracks(
            f"{rows.where(second)}: track {rows.ids[second]} is twice in image {index.image_ids[rows.images[second]]}, "
            f"first at {rows.where(first)}; an id belongs to one object of an image"
        )


def _masks(rows: BoxRows, kept: Ints, index: Index) -> list[Any]:
    assert rows.segmentations is not None
    numbers = kept.tolist()
    sizes = list(map(tuple, index.image_sizes[rows.images[kept]].tolist()))
    values = [rows.segmentations[row] for row in numbers]
    return list(read_segmentations(values, sizes, lambda i: f"{rows.where(numbers[i])}.segmentation"))
