"""Detections that lie in files, found by the names of what was mined: COCO JSON, or a folder of MOTChallenge texts.

A picture is the image whose `file_name` ends its path, a clip the video (COCO-VID) or the text that is called like its
video. A sample that the files do not know is an error of that sample, and no sample without detections.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.detectors.options import DetectorOptions, apply_options, known_classes
from trackmill.pipeline.formats.json_columns import JsonObjects, objects
from trackmill.pipeline.formats.json_files import load_json
from trackmill.pipeline.formats.mot_text import MAX_TEXT_BYTES, parse_mot_text
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.urls import basename, dirname
from trackmill.schemas.boxes import LARGEST_COORDINATE
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest, shortened
from trackmill.schemas.published import BadWeights

_JSON = (".json", ".json.gz")
_TEXTS = (".txt", ".csv")
_OBJECT = "object"
_NUMBER_KEYS = ("frame_index", "frame_id")
_CLIP = re.compile(r"#c\d{3,}$")
"""What the identity of a clip adds to that of its video."""
_NONE = -(2**63)
"""No image, of which there are no rows."""
_INNER = ("det", "gt", "img1")
"""Parts of MOTChallenge's paths that name no sequence: `MOT17-02/det/det.txt`, `MOT17-02/img1`."""


class NotInFile(InputError):
    """The files hold nothing about a sample; the text says what was looked for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxTable:
    """Boxes of many images in pixels of the original images, sorted by image; rows of an image in the file's order.

    Args:
        images: (N,) int64, whose each row is.
        boxes: (N, 4) float64 `xyxy`.
        scores: (N,).
        labels: (N,) int64, places in `names`.
        names: of the classes.
    """

    images: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def of(self, image: int, factors: NDArray[np.float64]) -> Detections:
        """Detections of an image, its boxes multiplied by `factors`, (4,)."""
        begin, end = np.searchsorted(self.images, [image, image + 1])
        return Detections(
            boxes=(self.boxes[begin:end] * factors).astype(np.float32),
            scores=self.scores[begin:end].astype(np.float32),
            labels=self.labels[begin:end],
            names=self.names,
        )


class FileDetections:
    """Detections of samples out of files.

    Args:
        where: the files, for messages.
        table: all boxes.
        pictures: image of each file name; empty where there are only videos.
        videos: for each name of a video, the image of each of its frames, from 0. A frame that is not there has no
            detection.
        options: of all detectors.

    Raises:
        InputError: a class is asked for that the files do not have.
    """

    def __init__(
        self,
        where: str,
        table: BoxTable,
        pictures: Mapping[str, int],
        videos: Mapping[str, Mapping[int, int]],
        options: DetectorOptions,
    ) -> None:
        self._where, self._table, self._options = where, table, options
        self._pictures, self._videos = pictures, videos
        self._by_last: dict[str, list[str]] = {}
        for name in pictures:
            self._by_last.setdefault(basename(name), []).append(name)
        self._kept = None if options.classes is None else known_classes(options.classes, table.names, where)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._table.names

    def of(self, sample: Sample, numbers: Iterable[int]) -> list[Detections]:
        """Detections of some frames of a sample, in pixels of the stored frames.

        Raises:
            NotInFile: the files know no such picture or video.
        """
        origin, stored = sample.record.origin, sample.record.stored
        x, y = stored.width / origin.width, stored.height / origin.height
        images = self._images(sample)
        frames = sample.record.frames
        factors = np.array([x, y, x, y])
        found = [self._table.of(images.get(frames[number].index, _NONE), factors) for number in numbers]
        return [apply_options(each, self._options, self._kept) for each in found]

    def _images(self, sample: Sample) -> Mapping[int, int]:
        """Image of each frame of the sample's picture or video."""
        path = _path(sample)
        if sample.record.kind == "image":
            image = self._picture(path)
            if image is None:
                near = nearest(basename(path), self._by_last)
                raise NotInFile(
                    "; ".join(filter(None, [f"{self._where}: has no image whose name ends {path!r}", near]))
                )
            return {frame.index: image for frame in sample.record.frames}
        for name in video_names(path):
            if name in self._videos:
                return self._videos[name]
        raise self._unknown(f"video or text called {path!r}", nearest(video_names(path)[-1], self._videos))

    def _unknown(self, what: str, near: str) -> NotInFile:
        return NotInFile("; ".join(filter(None, [f"{self._where}: has no {what}", near])))

    def _picture(self, path: str) -> int | None:
        parts = path.strip("/").split("/")
        for begin in range(len(parts)):  # the longest end of the path that is a name of the file
            image = self._pictures.get("/".join(parts[begin:]))
            if image is not None:
                return image
        # The file may name a folder that lies elsewhere now; then only a name that is there once tells which it is.
        same = self._by_last.get(parts[-1], [])
        return self._pictures[same[0]] if len(same) == 1 else None


def read_file_detections(url: str, sha256: str, options: DetectorOptions) -> tuple[FileDetections, str]:
    """Read detections of many pictures or videos.

    Args:
        url: a `.json` or `.json.gz` with COCO's `images`, `annotations` and `categories`, for videos COCO-VID's
            `videos` too; or a text of MOTChallenge, or a folder of them, each called like its sequence
            (`MOT17-02.txt`, or `MOT17-02/det/det.txt`).
        sha256: what the files must have; empty: anything.
        options: of all detectors.

    Returns:
        The detections, and the SHA-256 of the files.

    Raises:
        InputError: a file of another kind, or a row that is broken; names file and row.
        BadWeights: another SHA-256.
        OSError: a file could not be read.
    """
    where = redact(url)
    found = digest_of_files(url)
    if sha256 and found != sha256:
        raise BadWeights(
            f"{where}: the SHA-256 of the detections is {found}, this run was planned with {sha256}: they differ "
            "between machines or were replaced; put the same files everywhere, or start a new run"
        )
    if where.lower().endswith(_JSON):
        return _coco(load_json(url), where, options), found
    texts = {text.uri: read_bytes(text.uri, max_bytes=MAX_TEXT_BYTES) for text in _texts(url)}
    return _mot(texts, where, options), found


def digest_of_files(url: str) -> str:
    """SHA-256 of a file, or of all texts of a folder with their names.

    Raises:
        InputError: files of another kind.
        OSError: a file could not be read.
    """
    if redact(url).lower().endswith(_JSON):
        return hashlib.sha256(read_bytes(url)).hexdigest()
    sums = {
        text.uri: hashlib.sha256(read_bytes(text.uri, max_bytes=MAX_TEXT_BYTES)).hexdigest() for text in _texts(url)
    }
    # Wherever the folder lies: the parts of their paths that differ, and the names.
    parts = [uri.split("/") for uri in sums]
    shared = 0
    while all(len(each) > shared + 1 and each[shared] == parts[0][shared] for each in parts):
        shared += 1
    lines = [f"{'/'.join(each[shared:])} {total}\n" for each, total in zip(parts, sums.values())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def video_names(path: str) -> tuple[str, ...]:
    """What a video at this path may be called: its last part, and that without a suffix; of `A/img1` it is A."""
    parts = path.rstrip("/").split("/")
    while len(parts) > 1 and parts[-1] in _INNER:
        parts.pop()
    last = parts[-1]
    short = last.rpartition(".")[0] if "." in last else ""
    return tuple(dict.fromkeys(filter(None, (path, last, short or last))))


def _path(sample: Sample) -> str:
    """Of a picture its path, inside an archive too; of a clip that of its video."""
    text = redact(sample.record.origin.source_id)
    return _CLIP.sub("", text).replace("#", "/")


def _texts(url: str) -> list[Any]:
    texts = [file for file in list_files(url) if basename(file.uri).lower().endswith(_TEXTS)]
    texts = [file for file in texts if basename(file.uri) != "gt.txt"]  # what lies beside det/det.txt is no detection
    if not texts:
        raise InputError(f"{redact(url)}: detections are a COCO .json, a MOTChallenge .txt or a folder of these texts")
    return texts


def _coco(content: Any, path: str, options: DetectorOptions) -> FileDetections:
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise InputError(f"{path}: needed are COCO's 'images' and 'annotations'; a bare list of results names no image")
    images, rows = (
        objects(content["images"], f"{path}: images"),
        objects(content["annotations"], f"{path}: annotations"),
    )
    categories = objects(content.get("categories") or [], f"{path}: categories")
    ids = images.integers("id")
    owners = rows.integers("image_id")
    strange = np.flatnonzero(~np.isin(owners, ids))
    if len(strange):
        raise InputError(f"{rows.where(int(strange[0]), 'image_id')}: there is no image {owners[strange[0]]} in images")
    classes = rows.integers("category_id") if rows.has("category_id") else np.ones(len(rows), np.int64)
    known = categories.integers("id") if len(categories) else np.unique(classes)
    names = tuple(categories.texts("name")) if len(categories) else tuple(_unnamed(rows, known.tolist()))
    places = {int(number): place for place, number in enumerate(known.tolist())}
    for row, number in enumerate(classes.tolist()):
        if number not in places:
            raise InputError(f"{rows.where(row, 'category_id')}: there is no category {number} in categories")
    scores = rows.numbers("score") if rows.has("score") else np.ones(len(rows))
    table = _table(
        owners, rows.boxes(), scores, np.array([places[number] for number in classes.tolist()], np.int64), names
    )
    videos = _videos(content, images, ids, path) if images.has("video_id") else {}
    file_names = images.texts("file_name") if images.has("file_name") else []
    pictures = {name.strip("/"): int(number) for name, number in zip(file_names, ids.tolist())}
    if not pictures and not videos:
        raise InputError(f"{path}: images have neither a file_name nor a video_id, so nothing says which they are")
    return FileDetections(path, table, pictures, videos, options)


def _unnamed(rows: JsonObjects, known: Sequence[int]) -> list[str]:
    return [str(number) for number in known] if rows.has("category_id") else [_OBJECT]


def _videos(
    content: dict[str, Any], images: JsonObjects, ids: NDArray[np.int64], path: str
) -> dict[str, dict[int, int]]:
    """The image of each frame, of each video under all of its names."""
    videos = objects(content.get("videos") or [], f"{path}: videos")
    names = dict(zip(videos.integers("id").tolist(), videos.texts("name")))
    key = next((key for key in _NUMBER_KEYS if images.has(key)), None)
    numbers = None if key is None else images.integers(key).tolist()
    frames: dict[int, dict[int, int]] = {}
    for row, (owner, image) in enumerate(zip(images.integers("video_id").tolist(), ids.tolist())):
        if owner not in names:
            raise InputError(f"{images.where(row, 'video_id')}: there is no video {owner} in videos")
        mine = frames.setdefault(owner, {})
        mine[len(mine) if numbers is None else numbers[row]] = image
    found: dict[str, dict[int, int]] = {}
    for owner, name in names.items():
        for each in video_names(name):
            if each in found:
                raise InputError(f"{path}: videos: two of them are called {shortened(each, 80)!r}")
            found[each] = frames.get(owner, {})
    return found


def _mot(texts: Mapping[str, bytes], where: str, options: DetectorOptions) -> FileDetections:
    parts, videos = [], {}
    first = 0
    for uri, data in texts.items():
        rows = parse_mot_text(data, uri, identities=False)
        name = basename(uri).rpartition(".")[0]
        if name in _INNER:
            name = basename(dirname(dirname(uri)))
        if name in videos:
            raise InputError(f"{where}: two texts are of the sequence {name!r}: {redact(uri)} is the second")
        most = int(rows.frames.max(initial=0))
        videos[name] = {frame: first + frame for frame in range(most)}
        scores = rows.confidence
        if len(rows) and (scores == -1).all():
            scores = np.ones_like(scores)  # unknown, as MOTChallenge writes it
        parts.append((rows.frames - 1 + first, rows.boxes, scores, rows.classes))
        first += most
    images, boxes, scores, classes = (np.concatenate([part[place] for part in parts]) for place in range(4))
    named = bool(len(classes)) and bool((classes >= 1).all())
    known, labels = np.unique(classes, return_inverse=True) if named else (np.ones(1, np.int64), np.zeros_like(classes))
    names = tuple(map(str, known.tolist())) if named else (_OBJECT,)
    return FileDetections(where, _table(images, boxes, scores, labels.astype(np.int64), names), {}, videos, options)


def _table(
    images: NDArray[np.int64],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    names: tuple[str, ...],
) -> BoxTable:
    if not (np.abs(boxes) <= LARGEST_COORDINATE).all() or not (np.abs(scores) <= np.finfo(np.float32).max).all():
        raise InputError("a box or a score is out of range, or not finite")
    order = np.argsort(images, kind="stable")
    return BoxTable(images=images[order], boxes=boxes[order], scores=scores[order], labels=labels[order], names=names)
