"""What tests of tracking share: boxes of moving objects, an embedder without a network, and a video to go with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trackmill.models.association import MasaTaoTracker
from trackmill.models.detectors.base import Detector
from trackmill.models.embedders.base import Embedder
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.detections import Detections, make_detections
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

COLOURS = np.array([[220, 40, 40], [40, 200, 60], [60, 80, 230]], np.uint8)
SIDE = 12
"""Of the squares in `make_frame`."""


class ColourEmbedder(Embedder):
    """Embeds a box by the mean colour inside it; enough to tell the squares of `make_frame` apart."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        self.batches.append(len(images))
        return [
            np.array([_colour(image, box) for box in each], np.float32).reshape(-1, 3)
            for image, each in zip(images, boxes)
        ]


class SquareDetector(Detector):
    """Finds the squares of `make_frame` by their colours."""

    names = ("square",)
    category_ids = (1,)

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        return [make_detections(_squares(image), names=self.names) for image in images]


def make_tracker() -> MasaTaoTracker:
    """A rule that links what looks alike."""
    return MasaTaoTracker(init_score_thr=0.1, obj_score_thr=0.1)


def make_frame(step: int, height: int = 60, width: int = 100) -> NDArray[np.uint8]:
    """(H, W, 3) gray with three squares, each moving its own way."""
    image = np.full((height, width, 3), 128, np.uint8)
    for box, colour in zip(square_boxes(step).astype(int), COLOURS):
        image[box[1] : box[3], box[0] : box[2]] = colour
    return image


def square_boxes(step: int) -> Boxes:
    """(3, 4) where the squares of a frame are."""
    corners = np.array([[4 + 3 * step, 5], [80 - 3 * step, 22], [40, 40 - step]], np.float32)
    return np.concatenate([corners, corners + SIDE], axis=1)


def write_frames(folder: Path, count: int, first: int = 1) -> Path:
    """`000001.png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(count):
        Image.fromarray(make_frame(step)).save(folder / f"{first + step:06d}.png")
    return folder


def write_mot_detections(path: Path, count: int, first: int = 1) -> Path:
    """The squares as a `det.txt`, with the last frames first."""
    lines = [
        f"{first + step},-1,{x0},{y0},{x1 - x0},{y1 - y0},0.9,-1,-1,-1"
        for step in reversed(range(count))
        for x0, y0, x1, y1 in square_boxes(step).tolist()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def source_frame(index: int, image: NDArray[np.uint8] | None = None) -> SourceFrame:
    """One frame as a reader gives it."""
    image = make_frame(index) if image is None else image
    return SourceFrame(index=index, number=index + 1, time_s=index / 10, image=image, file_name=f"{index:06d}.png")


def tracked_objects(boxes: NDArray[np.floating], ids: Sequence[int], **columns: object) -> TrackedObjects:
    """Objects with given identities."""
    found = make_detections(boxes, **columns)
    return TrackedObjects(
        ids=np.array(ids, np.int64), objects=found, indices=np.arange(len(ids)), num_detections=len(ids)
    )


def _colour(image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.floating]:
    x0, y0 = np.clip(box[:2], 0, [image.shape[1] - 1, image.shape[0] - 1]).astype(int)
    x1, y1 = np.maximum(box[2:].astype(int), [x0 + 1, y0 + 1])
    return (image[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0) - 128) / 32


def _squares(image: NDArray[np.uint8]) -> Boxes:
    found = []
    for colour in COLOURS:
        rows, columns = np.nonzero((np.abs(image.astype(int) - colour) < 40).all(axis=2))
        if len(rows):
            found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return np.array(found, np.float32).reshape(-1, 4)
