"""Masks beside a folder of frames: one picture a frame whose numbers are identities (DAVIS, YouTube-VOS, MOSE).

`JPEGImages/480p/bear/00000.jpg` has its masks in `Annotations/480p/bear/00000.png`. A frame without such a file is not
labelled, which says nothing about its objects; a mask that is zero everywhere says that there are none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.mask_pictures import decode_label_picture
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.frame_files import fetch_or_missing
from trackmill.pipeline.sources.frame_names import FrameSequence
from trackmill.schemas.boxes import Boxes, empty_boxes
from trackmill.schemas.masks import CroppedMask, crop_mask, mask_box
from trackmill.schemas.media import Annotations

_MASK_FOLDERS = ("Annotations", "Annotations_unsupervised")
# The second is what DAVIS calls its unsupervised track; it counts where the first has nothing of a video.
_MASK_FOLDER = re.compile(r"^(?P<root>.*/|)(?:Annotations|Annotations_unsupervised)(?P<video>/.*|)$", re.DOTALL)
_FRAME_FOLDER = re.compile(r"^(?P<root>.*/|)JPEGImages(/.*|)$", re.DOTALL)

MOST_COVERED = 300
"""How often the boxes of all objects may cover a frame: each of the 255 that a palette has could be as large as it."""

MOST_REGIONS = 100_000
"""Separate regions of `VOID` in one frame; DAVIS has a handful."""

_LARGEST_NUMBER = 65_535

VOID = 255
"""DAVIS: neither an object nor background. In gray pictures that hold nothing else it is the one object instead."""


def mask_folders(frames: str) -> list[str]:
    """Where the masks of a folder of frames would lie; nowhere if it is not in a layout that has any."""
    root, found, video = frames.rpartition("JPEGImages/")
    return [f"{root}{kind}/{video}" for kind in _MASK_FOLDERS] if found else []


class MaskFolders:
    """The sequences of a listing, told apart: frames, and masks by the frames that they belong to.

    Args:
        sequences: see `trackmill.pipeline.sources.frame_names.find_sequences`.
    """

    def __init__(self, sequences: Sequence[FrameSequence]) -> None:
        roots = {match["root"] for each in sequences if (match := _FRAME_FOLDER.match(each.folder))}
        self.frames: list[FrameSequence] = []
        self._masks: dict[tuple[str, str], list[FrameSequence]] = {}
        for each in sequences:
            match = _MASK_FOLDER.match(each.folder) if each.suffix == ".png" else None
            if match is None or match["root"] not in roots:
                self.frames.append(each)
                continue
            frames = f"{match['root']}JPEGImages{match['video']}"
            self._masks.setdefault((frames, each.prefix), []).append(each)

    def of(self, frames: FrameSequence) -> list[FrameSequence]:
        """The masks of a sequence of frames, those that count first."""
        found = self._masks.get((frames.folder, frames.prefix), [])
        return sorted(found, key=lambda each: each.folder)

    def without_frames(self) -> list[tuple[str, list[FrameSequence]]]:
        """Folders where frames should be, each with the masks of them."""
        there = {(each.folder, each.prefix) for each in self.frames}
        return [(folder, masks) for (folder, prefix), masks in self._masks.items() if (folder, prefix) not in there]


@dataclass(frozen=True, slots=True)
class FrameMask:
    """The mask file of one frame, decoded.

    Args:
        height, width: of the mask in pixels.
        objects: by number, `VOID` among them.
        void: (K, 4) float32 `xyxy` boxes of the connected regions of `VOID`.
        palette: whether the picture has one.
    """

    height: int
    width: int
    objects: dict[int, CroppedMask]
    void: Boxes
    palette: bool


def read_frame_mask(uri: str, settings: ReadSettings) -> FrameMask:
    """Decode one mask file.

    Raises:
        BadItem: (or a subclass) it is gone, broken, or in colour.
        OSError: could not be fetched.
    """
    data = fetch_or_missing(uri, f"{uri}: was there when the work was planned, and is missing now", settings)
    labels, palette = decode_label_picture(data, uri, max_pixels=settings.max_pixels)
    height, width = labels.shape
    return FrameMask(height, width, _objects(labels, uri), _regions(labels == VOID, uri), palette)


def _objects(labels: NDArray[np.int64], uri: str) -> dict[int, CroppedMask]:
    """Each number's pixels; looked for in its own box only, since there may be hundreds of them."""
    from scipy import ndimage  # half a second that only such folders need

    if labels.min() < 0 or labels.max() > _LARGEST_NUMBER:
        raise BadItem(f"{uri}: its pixels hold numbers beyond 0 to {_LARGEST_NUMBER}: it is no mask of objects")
    places = [(number, place) for number, place in enumerate(ndimage.find_objects(labels), 1) if place is not None]
    covered = sum((rows.stop - rows.start) * (columns.stop - columns.start) for _, (rows, columns) in places)
    if covered > MOST_COVERED * labels.size:
        raise BadItem(
            f"{uri}: the boxes of its {len(places)} numbers cover the frame {covered // labels.size} times, "
            f"{MOST_COVERED} times at most: it is no mask of objects"
        )
    objects: dict[int, CroppedMask] = {}
    for number, (rows, columns) in places:
        crop = crop_mask(labels[rows, columns] == number)
        assert crop is not None, "a number has pixels in its box"
        objects[number] = replace(crop, x=crop.x + columns.start, y=crop.y + rows.start)
    return objects


def are_black_and_white(masks: list[FrameMask]) -> bool:
    """Whether masks of one video are black and white, so that 255 is an object: DAVIS 2016, and most tools."""
    return all(not mask.palette and mask.objects.keys() <= {VOID} for mask in masks)


def annotations_of_mask(mask: FrameMask, height: int, width: int, black_and_white: bool, where: str) -> Annotations:
    """Objects of one frame with their numbers as identities, and void regions as regions to ignore.

    Args:
        mask: see `read_frame_mask`.
        height, width: of the frame.
        black_and_white: see `are_black_and_white`; the object then has the identity 1.
        where: the mask's URI, for the error.

    Raises:
        BadItem: the mask is of another size than its frame.
    """
    if (mask.height, mask.width) != (height, width):
        raise BadItem(f"{where}: is {mask.height} x {mask.width}, its frame {height} x {width}")
    if black_and_white:
        objects, ignore = dict(zip((1,), mask.objects.values())), empty_boxes()
    else:
        objects = {number: crop for number, crop in mask.objects.items() if number != VOID}
        ignore = mask.void
    boxes = np.array([mask_box(crop) for crop in objects.values()], np.float32).reshape(-1, 4)
    return Annotations(
        boxes=boxes, ids=list(objects), scores=[1.0] * len(objects), masks=list(objects.values()), ignore=ignore
    )


def _regions(inside: NDArray[np.bool_], uri: str) -> Boxes:
    from scipy import ndimage

    labels, number = ndimage.label(inside)
    if number > MOST_REGIONS:
        raise BadItem(f"{uri}: {VOID} stands in {number} separate regions, {MOST_REGIONS} at most: it is no mask")
    found = ndimage.find_objects(labels)
    boxes = [[columns.start, rows.start, columns.stop, rows.stop] for rows, columns in found]
    return np.array(boxes, np.float32).reshape(-1, 4)
