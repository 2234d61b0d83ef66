"""Detections that come from a file behind the `Detector` contract: MOTChallenge text, COCO JSON, Parquet.

All of a file is read and checked at once, so that a broken row is an error before any frame is decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trackmill.models.detectors.base import Detector
from trackmill.pipeline.formats.frame_numbers import MAX_FRAME
from trackmill.pipeline.formats.json_columns import objects
from trackmill.pipeline.formats.json_files import load_json
from trackmill.pipeline.formats.mot_text import MAX_TEXT_BYTES, parse_mot_text
from trackmill.pipeline.formats.segmentations import read_segmentation
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData
from trackmill.pipeline.tracking.image_table import ImageTable, image_table, read_image_table
from trackmill.schemas.boxes import LARGEST_COORDINATE
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import CroppedMask, crop_mask, decode_counts

log = logging.getLogger("trackmill")

SUFFIXES = (".txt", ".csv", ".json", ".json.gz", ".parquet")
"""Of files that `read_detections` reads."""

_OBJECT = "object"
_MASK_BYTES = 400
"""What a row with a mask takes as Python objects, beside its text."""
_NUMBERS = ("frame", "x0", "y0", "x1", "y1", "score")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectionRows:
    """All detections of one video, in any order.

    Args:
        frames: (N,) int64, number of the frame, from 0.
        boxes: (N, 4) `xyxy`.
        scores: (N,).
        labels: (N,) int64, places in `names`.
        names, category_ids: of each label.
        masks: N values of `segmentation` as in COCO files, None without one; None where there are only boxes.
        where: file and line (or key) of a row, for errors.
    """

    frames: NDArray[np.int64]
    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    masks: Sequence[Any] | None
    where: Callable[[int], str]


class FileDetections(Detector):
    """Detections by the number of their frame.

    Args:
        rows: what the file holds.
        min_score: rows below it are left out.
    """

    def __init__(self, rows: DetectionRows, min_score: float = -np.inf) -> None:
        self.names, self.category_ids = rows.names, rows.category_ids
        self._rows = rows
        kept = np.flatnonzero(rows.scores >= min_score)
        # Stable: detections of a frame keep the order of the file, which decides ties.
        self._order = kept[np.argsort(rows.frames[kept], kind="stable")]
        self._frames = rows.frames[self._order]
        self._next = 0
        self.num_given = 0
        """Detections given out so far."""

    def __len__(self) -> int:
        return len(self._order)

    @property
    def frame_numbers(self) -> list[int]:
        """Frames of all rows, each once, counted from 1."""
        return [int(frame) + 1 for frame in np.unique(self._rows.frames)]

    def num_between(self, first: int, last: int) -> int:
        """Detections of the frames from `first` to `last`, counted from 1."""
        begin, end = np.searchsorted(self._frames, [first - 1, last])
        return int(end - begin)

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; in the order of the file, boxes as they stand there."""
        numbers = range(self._next, self._next + len(images)) if frames is None else frames
        found = [self._of_frame(number, *image.shape[:2]) for image, number in zip(images, numbers, strict=True)]
        self._next = (numbers[-1] + 1) if len(numbers) else self._next
        self.num_given += sum(map(len, found))
        return found

    def _of_frame(self, number: int, height: int, width: int) -> Detections:
        begin, end = np.searchsorted(self._frames, [number, number + 1])
        rows = self._order[begin:end]
        masks = None
        if self._rows.masks is not None:
            masks = tuple(self._mask(row, height, width) for row in rows.tolist())
        return Detections(
            boxes=self._rows.boxes[rows].astype(np.float32),
            scores=self._rows.scores[rows].astype(np.float32),
            labels=self._rows.labels[rows],
            names=self.names,
            masks=masks,
        )

    def _mask(self, row: int, height: int, width: int) -> CroppedMask | None:
        assert self._rows.masks is not None
        value = self._rows.masks[row]
        if not value:
            return None
        counts = read_segmentation(value, height, width, self._rows.where(row))["counts"]
        return crop_mask(decode_counts(counts, height, width))


def read_detections(
    url: str, video: str, file_names: Mapping[str, int], images: str | None = None, min_score: float = -np.inf
) -> FileDetections:
    """Read a file; its suffix says what it is.

    - `.txt`, `.csv`: MOTChallenge's `frame, id, x, y, width, height, confidence[, class, ...]`, frames from 1; ids are
      not looked at.
    - `.json`, `.json.gz`: COCO's `{"images", "annotations", "categories"}` with `bbox` (x, y, width, height), `score`
      (1 where missing) and perhaps `segmentation`; or a bare list of results, for which `images` must be given.
    - `.parquet`: columns `frame` (from 0), `x0, y0, x1, y1`, and if they are there `score`, `name`, `mask` (COCO
      counts of the frame).

    Args:
        url: the file.
        video: name of the sequence, see `image_table`.
        file_names: see `FrameReader.file_names`.
        images: URL of a COCO-VID or TAO file whose `images` say which image id is which frame.
        min_score: rows below it are left out.

    Raises:
        ValueError: a row that is broken (names line, row or key), or a file of another kind.
        OSError: it could not be read.
    """
    name = redact(url).lower()
    if name.endswith((".txt", ".csv")):
        return FileDetections(_mot_rows(read_bytes(url, max_bytes=MAX_TEXT_BYTES), url), min_score)
    if name.endswith((".json", ".json.gz")):
        table = read_image_table(images, video, file_names) if images else None
        return FileDetections(_coco_rows(load_json(url), redact(url), video, file_names, table), min_score)
    if name.endswith(".parquet"):
        return FileDetections(_parquet_rows(read_bytes(url, max_bytes=MAX_TABLE_FILE_BYTES), redact(url)), min_score)
    raise InputError(f"{redact(url)}: detections are read from .txt (MOTChallenge), .json (COCO) and .parquet files")


def _mot_rows(data: bytes, url: str) -> DetectionRows:
    rows = parse_mot_text(data, url, identities=False)
    named = (rows.classes >= 1).all()
    classes, labels = np.unique(rows.classes, return_inverse=True) if named else (np.ones(1, np.int64), None)
    scores = rows.confidence
    if len(rows) and (scores == -1).all():
        log.warning("%s: every score is -1, unknown: taken as 1", redact(url))
        scores = np.ones_like(scores)
    _refuse_large(scores, rows.where)
    return DetectionRows(
        frames=rows.frames - 1,
        boxes=rows.boxes,
        scores=scores,
        labels=np.zeros(len(rows), np.int64) if labels is None else labels.astype(np.int64),
        names=tuple(map(str, classes.tolist())) if named and len(classes) else (_OBJECT,),
        category_ids=tuple(classes.tolist()) or (1,),
        masks=None,
        where=rows.where,
    )


def _coco_rows(
    content: Any, path: str, video: str, file_names: Mapping[str, int], table: ImageTable | None
) -> DetectionRows:
    if isinstance(content, dict):
        if "annotations" not in content:
            raise InputError(f"{path}: has no 'annotations'; needed are images, annotations and categories")
        table = table or image_table(content, path, video, file_names)
        rows = objects(content["annotations"], f"{path}: annotations")
    else:
        rows = objects(content, f"{path}: ")
        if table is None:
            raise InputError(
                f"{path}: a bare list of detections does not say which image id is which frame; give --images with the "
                "COCO-VID or TAO file of the data set"
            )
    image_ids = rows.integers("image_id")
    frames = np.array([table.frames.get(image, -1) for image in image_ids.tolist()], np.int64)
    for row in np.flatnonzero(frames < 0).tolist():
        if int(image_ids[row]) not in table.others:
            raise InputError(f"{rows.where(row, 'image_id')}: there is no image {image_ids[row]} in images")
    classes = rows.integers("category_id") if rows.has("category_id") else np.ones(len(rows), np.int64)
    category_ids = table.category_ids or tuple(np.unique(classes).tolist()) or (1,)
    names = table.category_names or tuple(
        str(number) if rows.has("category_id") else _OBJECT for number in category_ids
    )
    places = {number: place for place, number in enumerate(category_ids)}
    for row, number in enumerate(classes.tolist()):
        if number not in places:
            raise InputError(f"{rows.where(row, 'category_id')}: there is no category {number} in categories")
    boxes, scores = rows.boxes(), rows.numbers("score") if rows.has("score") else np.ones(len(rows))
    _refuse_far(boxes, lambda row: rows.where(row, "bbox"))
    _refuse_large(scores, lambda row: rows.where(row, "score"))
    has_masks = rows.has("segmentation")
    mine = np.flatnonzero(frames >= 0)
    return DetectionRows(
        frames=frames[mine],
        boxes=boxes[mine],
        scores=scores[mine],
        labels=np.array([places[number] for number in classes.tolist()], np.int64)[mine],
        names=names,
        category_ids=category_ids,
        masks=[rows.items[row].get("segmentation") for row in mine.tolist()] if has_masks else None,
        where=lambda row: rows.where(int(mine[row]), "segmentation"),
    )


def _parquet_rows(data: bytes, path: str) -> DetectionRows:
    try:
        file = ParquetData(data)
        present = set(file.schema.names)
        masked = "mask" in present
        needed = (*_NUMBERS[:5], *(("height", "width", "mask") if masked else ()))
        if missing := [name for name in needed if name not in present]:
            why = ", where there is a column 'mask'" if missing[0] not in _NUMBERS else ""
            raise InputError(f"has no column {missing[0]!r}; needed are {', '.join(needed)}{why}")
        columns = [name for name in (*_NUMBERS, "name", *needed[5:]) if name in present]
        table = file.read(columns, row_bytes=_MASK_BYTES if masked else 0)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    numbers = {name: _numbers(table.column(name), name, path) for name in _NUMBERS if name in present}
    frames, boxes = numbers["frame"], np.column_stack([numbers[name] for name in _NUMBERS[1:5]])
    odd = (frames < 0) | (frames != np.floor(frames)) | (frames > MAX_FRAME)
    _refuse(path, "frame", odd, f"should be a whole number from 0 to {MAX_FRAME}")
    _refuse_far(boxes, lambda row: f"{path}: row {row}")
    _refuse_large(numbers.get("score", np.zeros(0)), lambda row: f"{path}: row {row}")
    _refuse(path, "x1 or y1", np.any(boxes[:, 2:] < boxes[:, :2], axis=1), "lies before x0 or y0")
    names: tuple[str, ...] = (_OBJECT,)
    labels = np.zeros(len(frames), np.int64)
    if "name" in present:
        names, labels = _labels(table.column("name"), path)
        names = names or (_OBJECT,)
    masks: list[Any] | None = None
    if masked:
        for name in ("height", "width"):
            if not pa.types.is_integer(table.column(name).type):
                raise InputError(f"{path}: column {name!r} holds {table.column(name).type}, should hold whole numbers")
        if not pa.types.is_string(table.column("mask").type):
            raise InputError(f"{path}: column 'mask' holds {table.column('mask').type}, should hold COCO's counts")
        sizes = zip(*(table.column(name).to_pylist() for name in ("height", "width", "mask")), strict=True)
        masks = [{"size": [height, width], "counts": counts} if counts else None for height, width, counts in sizes]
    return DetectionRows(
        frames=frames.astype(np.int64),
        boxes=boxes,
        scores=numbers.get("score", np.ones(len(frames))),
        labels=labels.astype(np.int64),
        names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        masks=masks,
        where=lambda row: f"{path}: row {row}, mask",
    )


def _labels(column: pa.ChunkedArray, path: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names that stand in a column, sorted, and which of them each row has."""
    if not (pa.types.is_string(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise InputError(f"{path}: column 'name' holds {column.type}, should hold texts")
    coded = column.dictionary_encode(null_encoding="encode").combine_chunks()
    texts = [str(text) for text in coded.dictionary.to_pylist()]
    names = sorted(set(texts))
    places = {name: place for place, name in enumerate(names)}
    place_of = np.array([places[text] for text in texts], np.int64)
    return tuple(names), place_of[coded.indices.to_numpy(zero_copy_only=False)] if texts else np.zeros(0, np.int64)


def _numbers(column: pa.ChunkedArray, name: str, path: str) -> NDArray[np.float64]:
    try:
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # a null becomes NaN
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(f"{path}: column {name!r} holds {column.type}, should hold numbers") from None
    _refuse(path, name, ~np.isfinite(values), "is not finite, or missing")
    return np.asarray(values, np.float64)


def _refuse_far(boxes: NDArray[np.floating], where: Callable[[int], str]) -> None:
    for row in np.flatnonzero(np.any(np.abs(boxes) > LARGEST_COORDINATE, axis=1))[:1].tolist():
        fault = f"the box lies farther than {LARGEST_COORDINATE:g} pixels from the image's corner"
        raise InputError(f"{where(row)}: {fault}")


def _refuse_large(scores: NDArray[np.floating], where: Callable[[int], str]) -> None:
    """Refuse scores that are infinite in 32 bits."""
    for row in np.flatnonzero(np.abs(scores) > np.finfo(np.float32).max)[:1].tolist():
        raise InputError(f"{where(row)}: the score should be a number of 32 bits, found {scores[row]:g}")


def _refuse(path: str, name: str, bad: NDArray[Any], fault: str) -> None:
    for row in np.flatnonzero(bad)[:1].tolist():
        raise InputError(f"{path}: row {row}: {name} {fault}")
