"""Track files of YouTube-VIS, OVIS, UVO and SA-Co/VEval: JSON with one entry a track and one list element a frame.

Ground truth: `{"videos": [...], "annotations": [...], "categories": [...]}`. Results: a list of tracks with `video_id`,
`category_id`, `score` and `segmentations` or `bboxes`. `youtube_vis_rows.py` reads masks and boxes, video by video.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.frame_numbers import MAX_FRAME
from trackmill.pipeline.formats.json_files import json_files, load_json
from trackmill.pipeline.formats.segmentations import MAX_PIXELS, brief
from trackmill.pipeline.storage.credentials import redact

ONE_CLASS = 1
"""Label of every track where classes are not distinguished."""

_MAX_FRAMES = MAX_FRAME
"""Of a video, and of all videos of a file. The largest data sets of this form have 200,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisVideo:
    """One video of the ground truth; sizes in pixels, 0 where the file does not say."""

    id: int
    name: str
    num_frames: int
    height: int
    width: int
    frame_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTrack:
    """One track of the file, parsed only far enough to know its video and category.

    Args:
        where: file and index, for errors.
        id: id in the file (ground truth), or place in the list from 1 (results), as in the official tools.
        label: category id, or `ONE_CLASS`.
        value: the JSON object.
    """

    where: str
    id: int
    label: int
    score: float
    ignored: bool
    value: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class VisTruth:
    """The ground truth.

    Args:
        videos: ascending by id, as in the official tools.
        categories: names by id, in the order of the file; names are unique.
        entries: tracks by video id.
        has_phrases: whether a file lists pairs of video and noun phrase, as SA-Co/VEval does.
    """

    videos: list[VisVideo] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    entries: dict[int, list[RawTrack]] = field(default_factory=dict)
    has_phrases: bool = False


def read_truth(url: str, *, one_class: bool = False) -> VisTruth:
    """Read the ground truth from one JSON file, or from all in a folder.

    Args:
        url: the file or folder.
        one_class: put all tracks into `ONE_CLASS`, whatever their category.

    Raises:
        BadTracks: a file is not of this form; the message gives file and key.
        OSError: a file cannot be read.
    """
    videos: dict[int, VisVideo] = {}
    categories: dict[int, str] = {ONE_CLASS: "object"} if one_class else {}
    entries: dict[int, list[RawTrack]] = {}
    has_phrases = False
    seen: set[int] = set()
    for file in json_files(url):
        content, at = load_json(file.uri), redact(file.uri)
        if not isinstance(content, dict):
            raise BadTracks(f"{at}: ground truth should be an object with 'videos', 'annotations' and 'categories'")
        has_phrases |= "video_np_pairs" in content
        for i, value in enumerate(_list(content, "videos", at)):
            video = _video(value, f"{at}: videos[{i}]")
            if video.id in videos:
                raise BadTracks(f"{at}: videos[{i}].id: video {video.id} is there twice")
            videos[video.id] = video
        if not one_class:
            _add_categories(categories, _list(content, "categories", at), at)
        annotations = _list(content, "annotations", at)
        content.clear()
        for i, value in enumerate(annotations):
            where = f"{at}: annotations[{i}]"
            number = _whole(_field(value, "id", where), f"{where}.id")
            if number in seen:
                raise BadTracks(f"{where}.id: id {number} is there twice; every track needs its own")
            seen.add(number)
            crowd = value.get("iscrowd")
            entry = RawTrack(
                where=where,
                id=number,
                label=ONE_CLASS if one_class else _category(value, where, categories),
                score=1.0,
                ignored=crowd is not None and _whole(crowd, f"{where}.iscrowd") != 0,
                value=value,
            )
            entries.setdefault(_video_id(value, where, videos), []).append(entry)
    total = sum(video.num_frames for video in videos.values())
    if total > _MAX_FRAMES:
        raise BadTracks(f"{redact(url)}: its videos have {total:,} frames in all, more than {_MAX_FRAMES:,}")
    return VisTruth(
        videos=_named_apart([videos[number] for number in sorted(videos)]),
        categories=_names_apart(categories),
        entries=entries,
        has_phrases=has_phrases,
    )


def read_results(url: str, truth: VisTruth, *, one_class: bool = False) -> dict[int, list[RawTrack]]:
    """Predicted tracks by video id, from one JSON file or from all in a folder.

    A file of ground truth counts as results with score 1.

    Raises:
        BadTracks: a file is not of this form, or has a video or category that is not in the ground truth.
        OSError: a file cannot be read.
    """
    videos = {video.id: video for video in truth.videos}
    tracks_by_video: dict[int, list[RawTrack]] = {}
    count = 0
    for file in json_files(url):
        content, at = load_json(file.uri), redact(file.uri)
        is_truth = isinstance(content, dict) and "annotations" in content
        tracks = _list(content, "annotations", at) if is_truth else content
        if not isinstance(tracks, list):
            raise BadTracks(f"{at}: results should be a list of tracks")
        for i, value in enumerate(tracks):
            where = f"{at}: annotations[{i}]" if is_truth else f"{at}: [{i}]"
            video_id = _video_id(value, where, videos)
            label = ONE_CLASS if one_class else _category(value, where, truth.categories)
            score = 1.0 if is_truth else finite(_field(value, "score", where), f"{where}.score")
            count += 1
            entry = RawTrack(where=where, id=count, label=label, score=score, ignored=False, value=value)
            tracks_by_video.setdefault(video_id, []).append(entry)
    return tracks_by_video


def _video(value: Any, where: str) -> VisVideo:
    number = _whole(_field(value, "id", where), f"{where}.id")
    names = value.get("file_names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise BadTracks(f"{where}.file_names: should be a list of names")
    if names:
        num_frames = len(names)
    else:
        num_frames = _whole(_field(value, "length", where), f"{where}.length")
    if not 0 <= num_frames <= _MAX_FRAMES:
        raise BadTracks(f"{where}.length: a video should have 0 to {_MAX_FRAMES:,} frames, not {num_frames:,}")
    sides = {}
    for side in ("height", "width"):
        sides[side] = _whole(value.get(side) or 0, f"{where}.{side}")
        if not 0 <= sides[side] < MAX_PIXELS:
            raise BadTracks(f"{where}.{side}: should be a number of pixels, found {sides[side]}")
    folder = names[0].rsplit("/", 1)[0] if names and "/" in names[0] else ""
    title = next((text for text in (value.get("name"), value.get("video_name"), folder) if text), number)
    return VisVideo(
        id=number,
        name=str(title),
        num_frames=num_frames,
        height=sides["height"],
        width=sides["width"],
        frame_names=tuple(names or ()),
    )


def _named_apart(videos: list[VisVideo]) -> list[VisVideo]:
    """Append the id to the names of videos that share a name."""
    count = Counter(video.name for video in videos)
    return [replace(video, name=f"{video.name} ({video.id})") if count[video.name] > 1 else video for video in videos]


def _names_apart(categories: Mapping[int, str]) -> dict[int, str]:
    count = Counter(categories.values())
    return {number: f"{name} ({number})" if count[name] > 1 else name for number, name in categories.items()}


def _add_categories(categories: dict[int, str], values: list[Any], at: str) -> None:
    own: set[int] = set()
    for i, value in enumerate(values):
        where = f"{at}: categories[{i}]"
        number, name = _whole(_field(value, "id", where), f"{where}.id"), _field(value, "name", where)
        if not isinstance(name, str):
            raise BadTracks(f"{where}.name: should be text, found {brief(name)}")
        if number in own or categories.get(number, name) != name:
            raise BadTracks(f"{where}.id: category {number} is there twice")
        own.add(number)
        categories[number] = name


def _video_id(value: Any, where: str, videos: Mapping[int, VisVideo]) -> int:
    number = _whole(_field(value, "video_id", where), f"{where}.video_id")
    if number not in videos:
        raise BadTracks(f"{where}.video_id: unknown video {number}; the ground truth has {_some(videos)}")
    return number


def _category(value: Any, where: str, categories: Mapping[int, str]) -> int:
    number = _whole(_field(value, "category_id", where), f"{where}.category_id")
    if number not in categories:
        raise BadTracks(f"{where}.category_id: unknown category {number}; the ground truth has {_some(categories)}")
    return number


def _some(numbers: Mapping[int, Any]) -> str:
    known = sorted(numbers)
    return ", ".join(map(str, known[:8])) + (f", ... {known[-1]}" if len(known) > 8 else "") if known else "none"


def _list(content: dict[str, Any], key: str, at: str) -> list[Any]:
    values = content.get(key)
    if not isinstance(values, list):
        raise BadTracks(f"{at}: {key}: should be a list, found {'nothing' if values is None else brief(values)}")
    return values


def _field(value: Any, key: str, where: str) -> Any:
    if not isinstance(value, dict):
        raise BadTracks(f"{where}: should be an object, found {brief(value)}")
    if value.get(key) is None:
        raise BadTracks(f"{where}: has no {key!r}")
    return value[key]


def _whole(value: Any, where: str) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if (type(value) is not int and type(value) is not bool) or abs(value) >= 1 << 62:
        raise BadTracks(f"{where}: should be a whole number, found {brief(value)}")
    return int(value)


def finite(value: Any, where: str) -> float:
    """Check a number of the file.

    Raises:
        BadTracks: the value is not a finite number.
    """
    if type(value) not in (int, float) or not math.isfinite(value):
        raise BadTracks(f"{where}: should be a finite number, found {brief(value)}")
    return float(value)
