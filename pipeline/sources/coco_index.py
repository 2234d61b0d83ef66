"""What a COCO file holds, by picture: where the bytes of its annotations lie. Made in one pass, whatever its size.

`instances_train2017.json` has 450 MB and 860,000 annotations in no order. Parsed whole it would take gigabytes; the
index takes some 60 bytes an annotation.
"""

from __future__ import annotations

import io
import re
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import shown
from trackmill.pipeline.sources.json_walk import Element, walk_json
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.storage.credentials import path_error
from trackmill.pipeline.storage.files import open_for_seeking
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import basename

MAX_ANNOTATIONS = 100_000_000
"""Of one file; Objects365 has 30 million."""

MAX_NAME_CHARACTERS = 1000
"""Of the name or the id of a picture."""

_HEAD_BYTES = 256 << 10
_BLOCK_BYTES = 4 << 20
_NAMES = re.compile(r"instances_|person_keypoints_|lvis_v|.*coco", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CocoPicture:
    """A picture that a file lists.

    Args:
        id: as written there.
        name: its file, as written; of LVIS, which has URLs instead, folder and name.
        height, width: as written; 0 where they are not.
        license: what it is published under; "" where that is not said.
        problem: why it cannot be used; "" if it can.
    """

    id: int | str
    name: str
    height: int
    width: int
    license: str
    problem: str = ""


@dataclass(slots=True)
class CocoIndex:
    """What a file holds.

    Args:
        pictures: those that it lists.
        starts: (P + 1,) first annotation of each picture; those of picture p are `starts[p]` to `starts[p + 1] - 1`.
        offsets, lengths: (N,) bytes of each annotation.
        numbers: (N,) place of each in the file's list.
        checksums: (N,) CRC-32 of these bytes.
        categories: names of all categories.
        chosen: how many of the wanted classes there are.
        with_videos: whether it lists videos, as COCO-VID does.
        boxless: whether none of its annotations has a box or a mask: captions, or panoptic segments.
        strays: annotations of pictures that it does not list.
        faults: what is wrong with single elements, the first of each kind.
        problem: why the file could not be read to its end, or is none of COCO's.
    """

    pictures: list[CocoPicture] = field(default_factory=list)
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    checksums: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    categories: list[str] = field(default_factory=list)
    chosen: set[str] = field(default_factory=set)
    with_videos: bool = False
    boxless: bool = False
    strays: int = 0
    faults: list[str] = field(default_factory=list)
    problem: str = ""


def index_coco(uris: Sequence[str], classes: frozenset[str]) -> Iterator[CocoIndex]:
    """The index of each file, in the order given.

    Args:
        uris: the files.
        classes: names of the categories whose annotations count; empty: all.
    """
    probe = partial(_index_or_reason, classes=classes)
    return probe_files(uris, probe, "annotation files", lambda reason: CocoIndex(problem=reason))


def likely_coco(uris: Sequence[str]) -> list[str]:
    """Those files that begin as COCO's do: with a list of pictures that have names, or of annotations of pictures.

    One that is empty or begins with no JSON at all is told by its name, so that what it says is not missed unnoticed.
    """
    return [uri for uri, likely in zip(uris, probe_files(uris, _begins_so, "JSON files", _is_not)) if likely]


def _is_not(reason: str) -> bool:
    return False


def _begins_so(uri: str) -> bool:
    num_elements = 0
    try:
        with open_for_seeking(uri, block_size=_HEAD_BYTES) as handle:
            for element in walk_json(io.BytesIO(handle.read(_HEAD_BYTES))):
                num_elements += 1
                if element.position != 0 or not isinstance(element.value, dict):
                    continue
                if element.key == "images" and ("file_name" in element.value or "coco_url" in element.value):
                    return True
                if element.key == "annotations" and "image_id" in element.value:
                    return True
    except (BadItem, OSError):  # the end of what was read, most often
        return not num_elements and _NAMES.match(basename(uri)) is not None
    return False


def _index_or_reason(uri: str, classes: frozenset[str]) -> CocoIndex:
    try:
        return retry(lambda: _Indexer(classes).run(uri), uri)
    except FileNotFoundError:
        return CocoIndex(problem="no such file")
    except OSError as error:
        return CocoIndex(problem=f"cannot be read: {path_error(error) or error}")


class _Indexer:
    """Collects what one pass over a file finds."""

    def __init__(self, classes: frozenset[str]) -> None:
        self._classes = classes
        self._index = CocoIndex()
        self._raw_pictures: list[tuple[CocoPicture, Any]] = []
        self._licenses: dict[Any, str] = {}
        self._names: dict[Any, str] = {}
        self._numbers: dict[int | str, int] = {}
        """A running number for each id of a picture, wherever it comes first."""
        self._of, self._offsets, self._lengths = array("q"), array("q"), array("q")
        self._category, self._category_numbers = array("q"), dict[Any, int]()
        self._position, self._checksums = array("q"), array("q")
        self._with_shape = False
        self._kinds: set[str] = set()

    def run(self, uri: str) -> CocoIndex:
        """Walk the file."""
        seen: set[str] = set()
        try:
            with open_for_seeking(uri, block_size=_BLOCK_BYTES) as handle:
                for element in walk_json(handle):
                    seen.add(element.key)
                    self._enter(element)
            for key in ("images", "annotations"):
                if key not in seen:
                    raise BadItem(f"has no {key!r}: it should be an object with images, annotations and categories")
        except BadItem as error:
            self._index.problem = str(error)
        self._finish()
        return self._index

    def _enter(self, element: Element) -> None:
        if element.key == "videos":
            self._index.with_videos |= element.position >= 0
        if element.key not in ("images", "annotations", "categories", "licenses") or element.length == 0:
            return
        where = f"{element.key}[{element.position}]"
        if element.position < 0:
            raise BadItem(f"{element.key!r} should be a list of objects, found {shown(element.value)}")
        if not isinstance(element.value, dict):
            self._fault(element.key, f"{where}: should be an object, found {shown(element.value)}")
        elif element.key == "annotations":
            self._annotation(element, where)
        else:
            try:
                value = orjson.loads(element.data)
            except orjson.JSONDecodeError as error:
                self._fault(element.key, f"{where}: not valid JSON: {error}")
                return
            if element.key == "images":
                self._picture(value, where)
            else:
                names = self._names if element.key == "categories" else self._licenses
                if isinstance(value.get("id"), int | str) and isinstance(value.get("name"), str):
                    names[value["id"]] = value["name"]
                elif element.key == "categories":
                    self._fault(element.key, f"{where}: should have an 'id' and a 'name'")

    def _picture(self, value: dict[str, Any], where: str) -> None:
        identity, name = value.get("id"), value.get("file_name")
        if not isinstance(name, str) and isinstance(value.get("coco_url"), str):
            name = "/".join(value["coco_url"].split("/")[-2:])
        if identity is None or not _is_id(identity) or not isinstance(name, str) or not _is_name(name):
            self._fault("images", f"{where}: should have an 'id' and a 'file_name'")
            return
        sides = [value.get("height", 0), value.get("width", 0)]
        problem = ""
        if not all(type(side) in (int, float) and side == int(side) and 0 <= side < 1 << 31 for side in sides):
            sides, problem = [0, 0], f"{where}: 'height' and 'width' should be whole numbers of pixels"
        picture = CocoPicture(identity, name, int(sides[0]), int(sides[1]), "", problem)
        self._raw_pictures.append((picture, value.get("license")))

    def _annotation(self, element: Element, where: str) -> None:
        value = element.value
        identity = value.get("image_id")
        if not _is_id(identity):
            self._fault("annotations", f"{where}: should have an 'image_id', found {shown(identity)}")
            return
        self._with_shape |= "bbox" in value or "segmentation" in value
        if len(self._of) >= MAX_ANNOTATIONS:
            raise BadItem(f"has more than {MAX_ANNOTATIONS:,} annotations; split it")
        category = value.get("category_id")
        if not isinstance(category, int | str):
            category = None
        self._of.append(self._numbers.setdefault(identity, len(self._numbers)))
        self._category.append(self._category_numbers.setdefault(category, len(self._category_numbers)))
        self._offsets.append(element.offset)
        self._lengths.append(element.length)
        self._position.append(element.position)
        self._checksums.append(zlib.crc32(element.data))

    def _fault(self, kind: str, text: str) -> None:
        if kind not in self._kinds:
            self._kinds.add(kind)
            self._index.faults.append(text)

    def _finish(self) -> None:
        """Sort the annotations by picture, and leave out those of other classes."""
        index = self._index
        names = list(self._names.values())
        index.categories = list(dict.fromkeys(names))
        index.chosen = set(names) & self._classes
        index.boxless = bool(len(self._of)) and not self._with_shape
        places: dict[int, int] = {}
        for picture, license_id in self._raw_pictures:
            known = isinstance(license_id, int | str)
            license_name = self._licenses.get(license_id, "") if known else ""
            number = self._numbers.setdefault(picture.id, len(self._numbers))
            if number in places:
                self._fault("images", f"id {shown(picture.id)} is that of two pictures")
                continue
            places[number] = len(index.pictures)
            index.pictures.append(
                CocoPicture(picture.id, picture.name, picture.height, picture.width, license_name, picture.problem)
            )
        place = np.full(len(self._numbers), -1, np.int64)
        place[list(places.keys())] = list(places.values())
        of = place[np.frombuffer(self._of, np.int64)] if len(self._of) else np.zeros(0, np.int64)
        index.strays = int((of < 0).sum())
        kept = of >= 0
        if self._classes and len(of):
            wanted = {key for key, name in self._names.items() if name in self._classes}
            is_wanted = np.array([key in wanted for key in self._category_numbers], bool)
            kept &= is_wanted[np.frombuffer(self._category, np.int64)]
        rows = np.flatnonzero(kept)
        rows = rows[np.argsort(of[rows], kind="stable")]
        index.starts = np.searchsorted(of[rows], np.arange(len(index.pictures) + 1))
        if len(of):
            index.offsets = np.frombuffer(self._offsets, np.int64)[rows]
            index.lengths = np.frombuffer(self._lengths, np.int64)[rows]
            index.numbers = np.frombuffer(self._position, np.int64)[rows]
            index.checksums = np.frombuffer(self._checksums, np.int64)[rows]


def _is_name(name: str) -> bool:
    return bool(name.strip("/\\. ")) and len(name) <= MAX_NAME_CHARACTERS


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_NAME_CHARACTERS
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 64
