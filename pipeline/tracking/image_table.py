"""The `images` of a COCO-VID or TAO file: which image id is which frame of the video that is being tracked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trackmill.pipeline.formats.json_columns import JsonObjects, objects
from trackmill.pipeline.formats.json_files import load_json
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.errors import InputError

_NUMBER_KEYS = ("frame_index", "frame_id")
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTable:
    """Ids that a data set has given to one video and its frames.

    Args:
        frames: number from 0 of the frame that each image id of this video is.
        others: image ids of the file that belong to other videos, or to no frame that is there.
        video_id: id of the video; 1 where the file knows no videos.
        category_ids, category_names: of the file, in its order; empty where it has none.
    """

    frames: Mapping[int, int]
    others: frozenset[int]
    video_id: int
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]


def read_image_table(url: str, video: str, file_names: Mapping[str, int]) -> ImageTable:
    """Read the `images`, `videos` and `categories` of a file.

    Raises:
        BadTracks: (a ValueError) as `image_table`.
        OSError: it could not be read.
    """
    return image_table(load_json(url), redact(url), video, file_names)


def image_table(content: Any, path: str, video: str, file_names: Mapping[str, int]) -> ImageTable:
    """Find the frames of one video.

    Where pictures are tracked, an image is the frame with its file name. Of a video file, it is the frame that
    `frame_index` or `frame_id` says (from 0); without either, images count in the order of the file.

    Args:
        content: the parsed file, an object with `images` and perhaps `videos` and `categories`.
        path: its name, for errors.
        video: name of the sequence; it chooses among several videos, by the last part of their names.
        file_names: see `FrameReader.file_names`.

    Raises:
        ValueError: keys missing or of another type, no such video, or no image of it.
    """
    if not isinstance(content, dict) or "images" not in content:
        raise InputError(f"{path}: has no 'images'; needed is an object with images and, for several videos, videos")
    images = objects(content["images"], f"{path}: images")
    video_id, mine = _of_video(content, images, path, video)
    ids = images.integers("id")
    key = next((key for key in _NUMBER_KEYS if images.has(key)), None)
    if file_names:
        numbers = np.array([file_names.get(basename(name), -1) for name in images.texts("file_name")], np.int64)
    elif key is not None:
        numbers = images.integers(key)
    else:
        numbers = np.full(len(images), -1)
        numbers[mine] = np.arange(len(mine))
    frames = {int(ids[row]): int(numbers[row]) for row in mine.tolist() if numbers[row] >= 0}
    if len(images) and not frames:
        raise InputError(f"{path}: images: none of them is a frame of {video!r}; are they of another data set?")
    categories = objects(content.get("categories") or [], f"{path}: categories")
    return ImageTable(
        frames=frames,
        others=frozenset(ids.tolist()) - frames.keys(),
        video_id=video_id,
        category_ids=tuple(categories.integers("id").tolist()),
        category_names=tuple(categories.texts("name")),
    )


def _of_video(content: dict[str, Any], images: JsonObjects, path: str, video: str) -> tuple[int, Any]:
    """Id of the video and the places of its images."""
    if not images.has("video_id"):
        return 1, np.arange(len(images))
    owners = images.integers("video_id")
    known = sorted(set(owners.tolist()))
    if len(known) > 1:
        videos = objects(content.get("videos") or [], f"{path}: videos")
        names = dict(zip(videos.integers("id").tolist(), videos.texts("name"), strict=True))
        known = [key for key in known if video in _names_of(names.get(key, ""))]
        if len(known) != 1:
            shown = ", ".join(list(names.values())[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise InputError(
                f"{path}: videos: {len(known) or 'none'} of them called {video!r} (there are {shown}); name the video "
                "file or the folder as the data set does, or give --name"
            )
    return known[0], np.flatnonzero(owners == known[0])


def _names_of(name: str) -> tuple[str, ...]:
    """What a video may be called: in full, by its last part, and without the suffix of a file."""
    last = basename(name)
    return name, name.replace("/", "-"), last, last.rpartition(".")[0]
