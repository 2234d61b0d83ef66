"""Scalabel frame lists, BDD100K's format: one JSON a video, one list of all frames, `{"frames": [...]}`, a folder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from trackmill.pipeline.evaluation.tracks import Tracks, first_duplicate, make_tracks
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.json_files import json_files, load_json
from trackmill.pipeline.formats.segmentations import brief, read_segmentations
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.names import nearest

MAX_COORDINATE = 1e9
"""Pixels; far beyond any picture, and small enough that no area overflows."""
MAX_FRAME_INDEX = (1 << 31) - 1

_NUMBERS = {float, int}
_SIDES = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledVideo:
    """All labels of one video, of the ground truth or of a tracker.

    Args:
        name: the frames' `videoName`.
        frame_indices: (T,) int64, ascending; time step t is the frame with `frameIndex` `frame_indices[t]`.
        frame_names: (T,) `videoName/name` of each frame.
        tracks: boxes exactly as in the file (`x1, y1, x2, y2`; each metric decides whether x2 lies inside), or the
            masks and their boxes; `labels` number the categories; `ignored` marks the ground truth's crowds.
        crowd, ignored: (N,) bool, the attributes of that name.
    """

    name: str
    frame_indices: NDArray[np.int64]
    frame_names: tuple[str, ...]
    tracks: Tracks
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


@dataclass(slots=True, kw_only=True)
class _Frame:
    where: str
    index: int
    name: str
    labels: list[Any]


@dataclass(slots=True, kw_only=True)
class _Columns:
    """Labels of one video in the order of its frames; each list has one entry a label."""

    steps: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    categories: list[int] = field(default_factory=list)
    shapes: list[Any] = field(default_factory=list)
    scores: list[Any] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    ignored: list[bool] = field(default_factory=list)


def read_scalabel(
    url: str,
    categories: Mapping[str, int],
    *,
    side: Literal["gt", "results"],
    shape: Literal["box", "mask"] = "box",
    sequences: Collection[str] | None = None,
) -> dict[str, LabelledVideo]:
    """Read every video below a URL, sorted by name.

    Args:
        url: one JSON (gzip allowed) or a folder of them; the frames of a video may be spread over several.
        categories: number of every category name that may occur; several names may share a number.
        side: in the ground truth, crowds may share an id within a frame; in results, ids must differ.
        shape: take `box2d` of every label, or its `rle` (counts compressed or not, `size` height and width).
        sequences: names of the videos to read; others are returned without labels, which are not checked. None reads
            all.

    Raises:
        BadTracks: a value is wrong; the message gives file and key path of the first.
        FileNotFoundError: there is nothing at that URL.
        OSError: could not be read.
    """
    frames: dict[str, list[_Frame]] = {}
    for file in json_files(url):
        _collect_frames(load_json(file.uri), redact(file.uri), frames)
    return {
        name: _read_video(name, frames[name], categories, side, shape, sequences is None or name in sequences)
        for name in sorted(frames)
    }


def _collect_frames(content: Any, where: str, frames: dict[str, list[_Frame]]) -> None:
    listed, prefix = content, f"{where}: "
    if isinstance(content, dict):
        listed, prefix = content.get("frames"), f"{where}: frames"
    if not isinstance(listed, list):
        raise BadTracks(f'{where}: should be a list of frames or {{"frames": [...]}}, found {brief(listed)}')
    for i, frame in enumerate(listed):
        place = f"{prefix}[{i}]"
        if not isinstance(frame, dict):
            raise BadTracks(f"{place}: a frame should be an object with videoName, frameIndex and labels")
        video, index, labels = frame.get("videoName"), frame.get("frameIndex"), frame.get("labels")
        if not isinstance(video, str) or not video:
            raise BadTracks(f"{place}.videoName: should name the frame's video, found {brief(video)}")
        if type(index) is not int or not 0 <= index <= MAX_FRAME_INDEX:
            raise BadTracks(f"{place}.frameIndex: should be a whole number from 0, found {brief(index)}")
        if labels is not None and not isinstance(labels, list):
            raise BadTracks(f"{place}.labels: should be a list or null, found {brief(labels)}")
        name = frame.get("name")
        name = f"{video}/{name}" if isinstance(name, str) and name else ""
        frames.setdefault(video, []).append(_Frame(where=place, index=index, name=name, labels=labels or []))


def _read_video(
    name: str,
    frames: list[_Frame],
    categories: Mapping[str, int],
    side: Literal["gt", "results"],
    shape: Literal["box", "mask"],
    wanted: bool,
) -> LabelledVideo:
    frames = sorted(frames, key=lambda frame: frame.index)
    for frame, following in itertools.pairwise(frames):
        if frame.index == following.index:
            raise BadTracks(
                f"{following.where}.frameIndex: video {name!r} has frame {frame.index} twice, also at {frame.where}"
            )
    columns = _Columns()
    for step, frame in enumerate(frames if wanted else []):
        _collect_labels(frame, step, categories, "box2d" if shape == "box" else "rle", columns)

    def where(row: int) -> str:
        return f"{frames[columns.steps[row]].where}.labels[{columns.places[row]}]"

    masks = _masks(columns.shapes, where) if shape == "mask" else None
    crowd = np.array(columns.crowd, bool)
    tracks = make_tracks(
        columns.steps,
        _numbered(columns.ids),
        _boxes(columns.shapes, where) if masks is None else _boxes_of_masks(masks),
        columns.categories,
        _scores(columns.scores, where),
        crowd if side == "gt" else None,
        masks,
    )
    twice = first_duplicate(tracks)
    if twice is not None:
        first, second = twice
        raise BadTracks(
            f"{where(second)}.id: {columns.ids[second]!r} is twice in this frame, also at "
            f"labels[{columns.places[first]}]; ids must differ within a frame"
        )
    return LabelledVideo(
        name=name,
        frame_indices=np.array([frame.index for frame in frames], np.int64),
        frame_names=tuple(frame.name for frame in frames),
        tracks=tracks,
        crowd=crowd,
        ignored=np.array(columns.ignored, bool),
    )


def _collect_labels(frame: _Frame, step: int, categories: Mapping[str, int], key: str, columns: _Columns) -> None:
    for place, label in enumerate(frame.labels):
        if not isinstance(label, dict):
            raise BadTracks(f"{frame.where}.labels[{place}]: a label should be an object, found {brief(label)}")
        category, identity, attributes = label.get("category"), label.get("id"), label.get("attributes")
        number = categories.get(category) if isinstance(category, str) else None
        if number is None:
            raise BadTracks(f"{frame.where}.labels[{place}].category: {_unknown(category, categories)}")
        if type(identity) is not str and type(identity) is not int:
            raise BadTracks(f"{frame.where}.labels[{place}].id: should be text or a whole number, {_found(identity)}")
        shape = label.get(key)
        if not isinstance(shape, dict):
            hint = "; masks are only read from rle, not from poly2d" if key == "rle" else ""
            raise BadTracks(f"{frame.where}.labels[{place}].{key}: should be an object, {_found(shape)}{hint}")
        crowd = ignored = False
        if attributes:
            crowd = _flag(attributes, "crowd", frame, place)
            ignored = _flag(attributes, "ignored", frame, place)
        columns.steps.append(step)
        columns.places.append(place)
        columns.ids.append(str(identity))
        columns.categories.append(number)
        columns.shapes.append(shape)
        columns.scores.append(label.get("score"))
        columns.crowd.append(crowd)
        columns.ignored.append(ignored)


def _flag(attributes: Any, name: str, frame: _Frame, place: int) -> bool:
    where = f"{frame.where}.labels[{place}].attributes"
    if not isinstance(attributes, dict):
        raise BadTracks(f"{where}: should be an object or null, {_found(attributes)}")
    value = attributes.get(name)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value is not None and not isinstance(value, (bool, int, float)):
        raise BadTracks(f"{where}.{name}: should be true or false, {_found(value)}")
    return bool(value)


def _boxes(shapes: list[Any], where: Any) -> NDArray[np.float64]:
    values = [shape.get(side) for shape in shapes for side in _SIDES]
    if not set(map(type, values)) <= _NUMBERS:
        wrong = next(i for i, value in enumerate(values) if type(value) not in _NUMBERS)
        raise BadTracks(f"{where(wrong // 4)}.box2d.{_SIDES[wrong % 4]}: should be a number, {_found(values[wrong])}")
    boxes = np.array(values, np.float64).reshape(-1, 4)
    wild = np.flatnonzero(~(np.abs(boxes.ravel()) <= MAX_COORDINATE))
    if wild.size:
        i = int(wild[0])
        raise BadTracks(
            f"{where(i // 4)}.box2d.{_SIDES[i % 4]}: should be finite and within {MAX_COORDINATE:,.0f} pixels, "
            f"found {values[i]}"
        )
    turned = np.argwhere(boxes[:, 2:] < boxes[:, :2])
    if len(turned):
        row, axis = (int(number) for number in turned[0])
        low, high = _SIDES[axis], _SIDES[axis + 2]
        raise BadTracks(
            f"{where(row)}.box2d: {high} = {boxes[row, axis + 2]:g} is less than {low} = {boxes[row, axis]:g}; "
            f"a box has its smaller corner first"
        )
    return boxes


def _masks(shapes: list[Any], where: Any) -> list[Any]:
    sizes = []
    for row, shape in enumerate(shapes):
        size = shape.get("size")
        if not (isinstance(size, list) and len(size) == 2 and all(type(length) is int for length in size)):
            raise BadTracks(f"{where(row)}.rle.size: should be [height, width] in pixels, {_found(size)}")
        if size != shapes[0]["size"]:
            raise BadTracks(f"{where(row)}.rle.size: is {size}, the video's first mask has {shapes[0]['size']}")
        sizes.append((size[0], size[1]))
    return read_segmentations(shapes, sizes, lambda row: f"{where(row)}.rle")


def _boxes_of_masks(masks: list[Any]) -> NDArray[np.float64]:
    boxes = np.array(coco.toBbox(masks), np.float64).reshape(-1, 4) if masks else np.zeros((0, 4))
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _scores(values: list[Any], where: Any) -> NDArray[np.float64]:
    for row, value in enumerate(values):
        if value is not None and (type(value) not in _NUMBERS or not math.isfinite(value)):
            raise BadTracks(f"{where(row)}.score: should be a finite number, {_found(value)}")
    return np.array([1.0 if value is None else float(value) for value in values], np.float64)


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Ids as numbers: their own where all ids of the video are short decimal numbers, else from 1 in sorted order.

    As in Scalabel's `label_ids_to_int`, "07" and "7" are the same id where all ids are digits.
    """
    if all(name.isascii() and name.isdigit() for name in names):
        plain = [name.lstrip("0") or "0" for name in names]
        if all(len(name) < 19 for name in plain):
            return np.array([int(name) for name in plain], np.int64)
        names = plain
    number = {name: i + 1 for i, name in enumerate(sorted(set(names)))}
    return np.array([number[name] for name in names], np.int64)


def _unknown(category: Any, categories: Mapping[str, int]) -> str:
    if not isinstance(category, str):
        return f"should be a name, {_found(category)}"
    hint = nearest(category, categories) or f"known: {', '.join(categories)}"
    return f"unknown category {brief(category)}; {hint}"


def _found(value: Any) -> str:
    return "but is missing" if value is None else f"found {brief(value)}"
