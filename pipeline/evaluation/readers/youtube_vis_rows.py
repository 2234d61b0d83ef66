"""Turns the tracks of one video of a YouTube-VIS file into the rows and tables that the metrics take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.metrics.track_overlaps import TrackTable, mask_areas, mask_boxes
from trackmill.pipeline.evaluation.overlaps import Iou
from trackmill.pipeline.evaluation.readers.youtube_vis import RawTrack, VisVideo, finite
from trackmill.pipeline.evaluation.tracks import Tracks, make_tracks
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.segmentations import Rle, brief, read_segmentations

OCCLUSION = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}
"""OVIS: the number that each occlusion level of a frame counts as (`oviseval.py`)."""

_MAX_COORDINATE = 1e9


def read_tracks(entries: list[RawTrack], video: VisVideo, iou: Iou, *, is_truth: bool) -> tuple[Tracks, TrackTable]:
    """Rows and tracks of one video.

    An object is absent from a frame whose mask (or box) is null, empty or all zeros. For boxes, tracks without `bboxes`
    take the bounds of their masks. A track's area is the mean over the frames that have one: of the file's `areas` for
    ground truth, else of its masks or boxes.

    Raises:
        BadTracks: a list is not as long as the video, or a mask or box is broken; names file, track and frame.
    """
    rows = [_mask_rows(entries, video)] if iou == "mask" else [_box_rows(entry, video) for entry in entries]
    nothing = _Rows(
        track=np.zeros(0, np.int64), frames=np.zeros(0, np.int64), boxes=np.zeros((0, 4)), sizes=np.zeros(0)
    )
    parts = [nothing, *rows]
    shift = np.arange(len(rows)) if iou == "box" else np.zeros(1, np.int64)
    which = np.concatenate([nothing.track, *(part.track + by for part, by in zip(rows, shift))])
    sizes = np.concatenate([part.sizes for part in parts])
    ids = np.array([entry.id for entry in entries], np.int64)
    labels = np.array([entry.label for entry in entries], np.int64)
    scores = np.array([entry.score for entry in entries], np.float64)
    tracks = make_tracks(
        np.concatenate([part.frames for part in parts]),
        ids[which],
        np.concatenate([part.boxes for part in parts]),
        labels=labels[which],
        scores=scores[which],
        masks=rows[0].masks if iou == "mask" else None,
    )
    areas = np.bincount(which, sizes, len(entries)) / np.maximum(np.bincount(which, sizes > 0, len(entries)), 1)
    for i, entry in enumerate(entries if is_truth else []):
        if entry.value.get("areas") is not None:
            areas[i] = _mean_area(entry, video)
    table = TrackTable(
        ids=ids,
        labels=labels,
        scores=scores,
        areas=areas,
        lengths=np.bincount(which, minlength=len(entries)),
        ignored=np.array([entry.ignored for entry in entries], bool),
        occlusion=np.array([_occlusion(entry, video) for entry in entries], np.float64),
    )
    return tracks, table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """N objects in frames: index of the track in the list, frame, box `xyxy`, area in square pixels, mask."""

    track: NDArray[np.int64]
    frames: NDArray[np.int64]
    boxes: NDArray[np.float64]
    sizes: NDArray[np.float64]
    masks: list[Rle] | None = None


def _mask_rows(entries: list[RawTrack], video: VisVideo) -> _Rows:
    """All masks of a video that are not empty."""
    values: list[Any] = []
    places: list[tuple[int, int]] = []
    for track, entry in enumerate(entries):
        if entry.value.get("segmentations") is None:
            raise BadTracks(f"{entry.where}: has no segmentations; compare boxes with --iou box")
        for frame, value in enumerate(_over_frames(entry, "segmentations", video)):
            if value:
                values.append(value)
                places.append((track, frame))
    if values and (video.height <= 0 or video.width <= 0):
        raise BadTracks(f"{entries[0].where}: masks need 'height' and 'width' of video {video.id} in the ground truth")

    def where(i: int) -> str:
        return f"{entries[places[i][0]].where}.segmentations[{places[i][1]}]"

    masks = read_segmentations(values, [(video.height, video.width)] * len(values), where)
    sizes, boxes = mask_areas(masks), mask_boxes(masks)
    # An empty mask is no object: kept as one, it would count as a false positive.
    there = np.flatnonzero(sizes)
    track, frames = np.array(places, np.int64).reshape(-1, 2)[there].T
    return _Rows(
        track=track, frames=frames, boxes=boxes[there], sizes=sizes[there], masks=[masks[i] for i in there.tolist()]
    )


def _box_rows(entry: RawTrack, video: VisVideo) -> _Rows:
    """Boxes of one track."""
    if entry.value.get("bboxes") is None:
        if entry.value.get("segmentations") is None:
            raise BadTracks(f"{entry.where}: has neither 'bboxes' nor 'segmentations'")
        return _mask_rows([entry], video)
    kept, frames = [], []
    for frame, box in enumerate(_over_frames(entry, "bboxes", video)):
        if not box:
            continue
        fault = _box_fault(box)
        if fault:
            raise BadTracks(f"{entry.where}.bboxes[{frame}]: {fault}, found {brief(box)}")
        if any(box):
            kept.append(box)
            frames.append(frame)
    boxes = np.array(kept, np.float64).reshape(-1, 4)
    sizes = boxes[:, 2] * boxes[:, 3]
    boxes[:, 2:] += boxes[:, :2]
    return _Rows(track=np.zeros(len(frames), np.int64), frames=np.array(frames, np.int64), boxes=boxes, sizes=sizes)


def _box_fault(box: Any) -> str:
    if type(box) is not list or len(box) != 4 or not all(type(number) in (int, float) for number in box):
        return "a box should be four numbers [x, y, width, height]"
    if not all(abs(number) <= _MAX_COORDINATE for number in box):
        return f"a box should lie within {_MAX_COORDINATE:.0e} pixels"
    return "a box should have no negative width or height" if box[2] < 0 or box[3] < 0 else ""


def _mean_area(entry: RawTrack, video: VisVideo) -> float:
    """Mean of the areas that the file gives, over the frames that have one."""
    record = [area for area in _over_frames(entry, "areas", video) if area]
    numbers = [finite(area, f"{entry.where}.areas") for area in record]
    if not all(0 <= number <= _MAX_COORDINATE**2 for number in numbers):
        raise BadTracks(f"{entry.where}.areas: an area should lie between 0 and {_MAX_COORDINATE**2:.0e} pixels")
    return float(np.mean(numbers)) if numbers else 0.0


def _occlusion(entry: RawTrack, video: VisVideo) -> float:
    """Mean level over the half of the frames where the object is most occluded; NaN where no frame has a level."""
    if entry.value.get("occlusion") is None:
        return math.nan
    levels = []
    for frame, level in enumerate(_over_frames(entry, "occlusion", video)):
        if level is None:
            continue
        if not isinstance(level, str) or level not in OCCLUSION:
            raise BadTracks(f"{entry.where}.occlusion[{frame}]: should be one of {', '.join(OCCLUSION)} or null")
        levels.append(OCCLUSION[level])
    levels.sort(reverse=True)
    half = levels[: (len(levels) + 1) // 2]
    return sum(half) / len(half) if half else math.nan


def _over_frames(entry: RawTrack, key: str, video: VisVideo) -> list[Any]:
    """A track's list over the frames of its video."""
    values = entry.value[key]
    if not isinstance(values, list):
        raise BadTracks(f"{entry.where}.{key}: should be a list with one element a frame, found {brief(values)}")
    if len(values) != video.num_frames:
        raise BadTracks(
            f"{entry.where}.{key}: has {len(values):,} elements, but video {video.name!r} has {video.num_frames:,} "
            "frames; write null where the object is absent"
        )
    return values
