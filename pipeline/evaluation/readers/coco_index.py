"""Videos, images and categories of a TAO or COCO-VID file, and their look-up by id."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.json_columns import JsonObjects, objects, whole_numbers
from trackmill.pipeline.formats.segmentations import brief

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A class. `frequency` is LVIS's f, c or r (rare), None where the file does not say."""

    id: int
    name: str
    frequency: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Index:
    """The V videos, I images and the categories that boxes refer to, in the order of the file.

    Args:
        video_ids: (V,) ids.
        names: V unique names, with `-` in place of `/` as in the official tools.
        negative, not_exhaustive: V sets of categories that are known to be absent, or not annotated completely.
        image_ids: (I,) ids.
        image_videos: (I,) index of the image's video.
        image_steps: (I,) time step in the video, by frame number.
        image_sizes: (I, 2) height and width in pixels, 0 where the file does not say.
        file_names: I names, empty where the file does not say.
        categories: in the order of the file.
        folded: maps each category id, also those that another category lists as `merged`, to the id it counts as.
    """

    video_ids: Ints
    names: tuple[str, ...]
    negative: tuple[frozenset[int], ...]
    not_exhaustive: tuple[frozenset[int], ...]
    image_ids: Ints
    image_videos: Ints
    image_steps: Ints
    image_sizes: Ints
    file_names: tuple[str, ...]
    categories: tuple[Category, ...]
    folded: dict[int, int]

    def images(self, rows: JsonObjects) -> Ints:
        """Index of the image of each row (N,).

        Raises:
            BadTracks: the ground truth has no such image, or `video_id` is not the image's video.
        """
        ids = rows.integers("image_id")
        images_of_rows = _find(self.image_ids, ids)
        for row in np.flatnonzero(images_of_rows < 0)[:1].tolist():
            raise BadTracks(f"{rows.where(row, 'image_id')}: the ground truth has no image {ids[row]}")
        if rows.has("video_id"):
            values = [item.get("video_id") for item in rows.items]
            given = [row for row, value in enumerate(values) if value is not None]
            videos = whole_numbers([values[row] for row in given], lambda i: rows.where(given[i], "video_id"))
            real = self.video_ids[self.image_videos[images_of_rows[given]]]
            for i in np.flatnonzero(videos != real)[:1].tolist():
                raise BadTracks(
                    f"{rows.where(given[i], 'video_id')}: image {ids[given[i]]} belongs to video {real[i]}, found "
                    f"{videos[i]}; correct it, or leave out video_id"
                )
        return images_of_rows

    def labels(self, rows: JsonObjects) -> Ints:
        """Category id of each row (N,) as in the file.

        Raises:
            BadTracks: the ground truth has no such category.
        """
        labels = rows.integers("category_id")
        for row in np.flatnonzero(~np.isin(labels, np.array(list(self.folded), np.int64)))[:1].tolist():
            raise BadTracks(
                f"{rows.where(row, 'category_id')}: the ground truth has no category {labels[row]}; results need its "
                "category ids, which need not count from 0"
            )
        return labels

    def fold(self, labels: Ints) -> Ints:
        """The ids that category ids count as after merging; all must be known."""
        known = np.array(sorted(self.folded), np.int64)
        target = np.array([self.folded[label] for label in known.tolist()], np.int64)
        return target[np.searchsorted(known, labels)]


def read_index(content: Any, path: str) -> Index:
    """Check and read everything but the annotations.

    Args:
        content: the parsed file.
        path: its name, for errors.

    Raises:
        BadTracks: a value is missing, of the wrong type, duplicate or unknown; the message gives the key path.
    """
    if not isinstance(content, dict):
        raise BadTracks(f"{path}: should be an object with videos, images, annotations and categories")
    for key in ("videos", "images", "annotations", "categories"):
        if key not in content:
            raise BadTracks(f"{path}: has no {key!r}; the ground truth is an object with videos, images, annotations "
                            "and categories")  # fmt: skip
    videos = objects(content["videos"], f"{path}: videos")
    images = objects(content["images"], f"{path}: images")
    video_ids, image_ids = _unique(videos), _unique(images)
    image_videos = _find(video_ids, images.integers("video_id"))
    for row in np.flatnonzero(image_videos < 0)[:1].tolist():
        raise BadTracks(f"{images.where(row, 'video_id')}: no video {images.items[row]['video_id']} in videos")
    categories, folded = _categories(objects(content["categories"], f"{path}: categories"))
    return Index(
        video_ids=video_ids,
        names=_names(videos),
        negative=_label_sets(videos, "neg_category_ids", folded),
        not_exhaustive=_label_sets(videos, "not_exhaustive_category_ids", folded),
        image_ids=image_ids,
        image_videos=image_videos,
        image_steps=_steps(images, image_ids, image_videos),
        image_sizes=_sizes(images, videos, image_videos),
        file_names=tuple(images.texts("file_name")) if images.has("file_name") else ("",) * len(images),
        categories=categories,
        folded=folded,
    )


def _find(known: Ints, ids: Ints) -> Ints:
    """Index of each id in `known`, -1 where it is not there."""
    if not len(known):
        return np.full(len(ids), -1)
    order = np.argsort(known)
    found = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)]
    return np.where(known[found] == ids, found, -1)


def _unique(rows: JsonObjects) -> Ints:
    ids = rows.integers("id")
    _refuse_twins(ids, ids, lambda row, other: f"{rows.where(row, 'id')}: {rows.where(other)} has id {ids[row]} too")
    return ids


def _refuse_twins(first: Ints, second: Ints, message: Callable[[int, int], str]) -> None:
    """Raise for the first two rows that agree in both columns."""
    order = np.lexsort((second, first))
    same = (first[order][1:] == first[order][:-1]) & (second[order][1:] == second[order][:-1])
    for place in np.flatnonzero(same)[:1].tolist():
        raise BadTracks(message(int(order[place + 1]), int(order[place])))


def _names(videos: JsonObjects) -> tuple[str, ...]:
    names = [name.replace("/", "-") for name in videos.texts("name")]
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in rows:
            raise BadTracks(f"{videos.where(row, 'name')}: {videos.where(rows[name])} is called {name!r} too")
        rows[name] = row
    return tuple(names)


def _label_sets(videos: JsonObjects, key: str, known: Collection[int]) -> tuple[frozenset[int], ...]:
    """The known categories that each video lists."""
    sets = []
    for row, video in enumerate(videos.items):
        listed = video.get(key) or []
        if type(listed) is not list or not all(type(label) is int for label in listed):
            raise BadTracks(f"{videos.where(row, key)}: should be a list of category ids, found {brief(listed)}")
        sets.append(frozenset(listed).intersection(known))
    return tuple(sets)


def _steps(images: JsonObjects, image_ids: Ints, image_videos: Ints) -> Ints:
    """(I,) rank of each image in its video."""
    if not len(images):
        return np.zeros(0, np.int64)
    key = "frame_index" if images.has("frame_index") or not images.has("frame_id") else "frame_id"
    numbers = images.integers(key)
    _refuse_twins(
        image_videos,
        numbers,
        lambda row, other: (
            f"{images.where(row, key)}: image {image_ids[other]} of the same video is frame {numbers[row]} too"
        ),
    )
    order = np.lexsort((numbers, image_videos))
    begin = np.searchsorted(image_videos[order], np.arange(image_videos.max() + 1))
    steps = np.zeros(len(images), np.int64)
    steps[order] = np.arange(len(images)) - begin[image_videos[order]]
    return steps


def _sizes(images: JsonObjects, videos: JsonObjects, image_videos: Ints) -> Ints:
    """(I, 2) height and width of each image, or else of its video."""
    columns = []
    for key in ("height", "width"):
        if images.has(key) or not videos.has(key):
            columns.append(images.integers(key) if images.has(key) else np.zeros(len(images), np.int64))
        else:
            columns.append(videos.integers(key)[image_videos])
    return np.stack(columns, axis=1)


def _categories(rows: JsonObjects) -> tuple[tuple[Category, ...], dict[int, int]]:
    ids, names = _unique(rows).tolist(), rows.texts("name")
    folded = dict(zip(ids, ids))
    categories = []
    for row, (label, name) in enumerate(zip(ids, names)):
        frequency, merged = rows.items[row].get("frequency"), rows.items[row].get("merged") or []
        if frequency is not None and type(frequency) is not str:
            raise BadTracks(f"{rows.where(row, 'frequency')}: should be text such as 'f', found {brief(frequency)}")
        path = rows.where(row, "merged")
        folded |= dict.fromkeys(objects(merged, path).integers("id").tolist(), label)
        categories.append(Category(id=label, name=name, frequency=frequency))
    return tuple(categories), folded
