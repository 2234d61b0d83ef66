"""A folder of YOLO label files as detections: one text a frame, `class cx cy width height [confidence]`, normalised.

So `yolo predict save_txt save_conf` writes them: `NAME_1.txt`, `NAME_2.txt` for the frames of a video, and for pictures
a text that is called like each. A frame without a text has no object.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from trackmill.pipeline.formats.frame_numbers import MAX_FRAME
from trackmill.pipeline.formats.text_spellings import utf8
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.urls import basename
from trackmill.pipeline.tracking.detection_files import DetectionRows, FileDetections
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError

NAMES_FILE = "classes.txt"
"""Names of the classes, one a line, as labelling tools write it into the folder; without it a class has its number."""

_MAX_TEXT_BYTES = 16 << 20
_MAX_CLASS = 1_000_000
_FARTHEST = 100.0
"""Of a normalised coordinate: boxes may leave the picture, but not by many times its size."""


class YoloDetections(FileDetections):
    """Rows whose boxes are shares of the frame's width and height."""

    def _of_frame(self, number: int, height: int, width: int) -> Detections:
        found = super()._of_frame(number, height, width)
        return replace(found, boxes=found.boxes * np.array([width, height, width, height], np.float32))


def read_yolo_labels(url: str, video: str, file_names: Mapping[str, int], min_score: float = -np.inf) -> YoloDetections:
    """Read a folder of label files.

    Args:
        url: the folder. Files of other videos may lie in it too.
        video: name of the sequence: its files are called `NAME_000001.txt`, or just `000001.txt`; frames from 1.
        file_names: see `FrameReader.file_names`: a text may be called like a picture instead.
        min_score: rows below it are left out.

    Raises:
        InputError: no file of this video is there, one is no UTF-8, or a line is broken; names file and line.
        OSError: it could not be read.
    """
    pictures = {name.rpartition(".")[0]: number for name, number in file_names.items()}
    texts = [file.uri for file in list_files(url) if file.uri.lower().endswith(".txt")]
    frames: dict[int, str] = {}
    names: tuple[str, ...] = ()
    for uri in texts:
        name = basename(uri)
        if name == NAMES_FILE:
            names = tuple(_text(uri).splitlines())
            continue
        number = _frame(name.rpartition(".")[0], video, pictures)
        if number is None:
            continue
        if number in frames:
            raise InputError(f"{redact(uri)} and {basename(frames[number])} are both of frame {number + 1}")
        frames[number] = uri
    if not frames:
        wanted = f"texts called like its pictures, as {next(iter(pictures))}.txt" if pictures else f"{video}_1.txt, ..."
        raise InputError(f"{redact(url)}: holds no labels of {video}; wanted are {wanted}")
    rows: list[tuple[int, int, float, float, float, float, float]] = []
    where: list[str] = []
    for number in sorted(frames):
        for line, words in enumerate(map(str.split, _text(frames[number]).splitlines()), 1):
            if words:
                where.append(f"{redact(frames[number])}: line {line}")
                rows.append((number, *_row(words, where[-1])))
    table = np.array(rows, np.float64).reshape(-1, 7)
    num_classes = max(len(names), int(table[:, 1].max(initial=0)) + 1)
    names = tuple(names[place] if place < len(names) else str(place) for place in range(num_classes))
    kept = DetectionRows(
        frames=table[:, 0].astype(np.int64),
        boxes=np.hstack([table[:, 2:4] - table[:, 4:6] / 2, table[:, 2:4] + table[:, 4:6] / 2]),
        scores=table[:, 6],
        labels=table[:, 1].astype(np.int64),
        names=names,
        category_ids=tuple(range(1, num_classes + 1)),
        masks=None,
        where=where.__getitem__,
    )
    return YoloDetections(kept, min_score)


def _text(url: str) -> str:
    try:
        return utf8(read_bytes(url, max_bytes=_MAX_TEXT_BYTES), url).decode()
    except UnicodeDecodeError:
        raise InputError(f"{redact(url)}: is no UTF-8 text; save it as UTF-8") from None


def _frame(stem: str, video: str, pictures: Mapping[str, int]) -> int | None:
    """Which frame a text is of, from 0; None: of none of this video."""
    if stem in pictures:
        return pictures[stem]
    found = re.fullmatch(r"(?:(?P<video>.*)_)?(?P<number>\d{1,9})", stem)
    if found is None or pictures or found["video"] not in (None, video) or not 1 <= int(found["number"]) <= MAX_FRAME:
        return None
    return int(found["number"]) - 1


def _row(words: list[str], where: str) -> tuple[int, float, float, float, float, float]:
    """Class, cx, cy, width, height, score; a seventh number is the identity that a tracker gave, and not looked at."""
    if len(words) not in (5, 6, 7):
        more = "; polygons are no boxes" if len(words) > 7 else ""
        raise InputError(f"{where}: should be class cx cy width height [confidence], found {len(words)} numbers{more}")
    try:
        label, *numbers = (float(word) for word in words[:6])
    except ValueError:
        raise InputError(f"{where}: should be numbers alone, found {' '.join(words)[:60]!r}") from None
    if not (label.is_integer() and 0 <= label <= _MAX_CLASS):
        raise InputError(f"{where}: the class should be a whole number from 0, found {words[0][:20]}")
    if not all(math.isfinite(number) and abs(number) <= _FARTHEST for number in numbers[:4]):
        raise InputError(f"{where}: a box should be given as shares of the picture's width and height, from 0 to 1")
    if numbers[2] < 0 or numbers[3] < 0:
        raise InputError(f"{where}: width and height should not be negative")
    score = numbers[4] if len(numbers) > 4 else 1.0
    if not abs(score) <= 1e6:
        raise InputError(f"{where}: the confidence should be a number, found {words[5][:20]}")
    if score > 1:  # as `yolo track save_txt` writes identities where it writes no confidences
        raise InputError(
            f"{where}: the sixth number, {words[5][:20]}, is no confidence: write them with save_conf=True, or leave "
            "the id out"
        )
    return int(label), numbers[0], numbers[1], numbers[2], numbers[3], score
