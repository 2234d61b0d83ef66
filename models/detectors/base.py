"""The contract of a detector: a batch of uint8 RGB images in, one `Detections` each out, in pixels of each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError


class Detector(ABC):
    """Finds objects in images.

    It is deterministic, and an image gives the same detections in whatever batch it comes. Whoever tracks reads `names`
    and `category_ids` when result files are opened, then calls `detect` with the frames of a video in their order. A
    detector that is named on the command line is made as `trackmill.models.registry` says: by `build(config, tensors,
    device)` if it has that, else without arguments.
    """

    names: tuple[str, ...]
    """Name of each of the K labels that it can give; constant."""

    category_ids: tuple[int, ...]
    """For files: the id of each label's category in the data set that the detector speaks of; K of them, constant."""

    applies: frozenset[str] = frozenset()
    """Options (`trackmill.models.detectors.options.DetectorOptions`) that it keeps itself, because they change how it
    works and not just what is left of its detections. Whoever builds it by name applies the others behind it."""

    @abstractmethod
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """Detections of each image.

        Args:
            images: any number of (H, W, 3) uint8 RGB arrays of any sizes; they are not to be changed.
            frames: number of each image in its video, from 0. Only detections that come from a file read it; without
                it, images are taken to follow those of the last call.

        Returns:
            One `Detections` an image, in order: boxes in pixels of that image, and `names` those of the detector.
        """


def check_images(images: Sequence[NDArray[np.uint8]]) -> None:
    """Refuse images that are none, for detectors that would fail somewhere inside or find nothing in silence.

    Raises:
        InputError: one is not (H, W, 3) uint8, or has no pixel; says which, and what it is.
    """
    for number, image in enumerate(images):
        check_image(image, f"images[{number}]")


def check_image(image: NDArray[np.uint8], name: str = "image") -> None:
    """Refuse what is no image; `name` is what the message calls it.

    Raises:
        InputError: see `check_images`.
    """
    fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not fits or 0 in image.shape:
        found = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"{name}: should be (H, W, 3) uint8 RGB with pixels, found {found}")


def detect_each(
    detector: Detector, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None
) -> list[Detections]:
    """What a detector of anybody finds, after a look at whether it is what the contract says.

    Raises:
        InputError: it gave no list of `Detections`, or another number of them than of images.
    """
    given = detector.detect(images, frames)
    name = type(detector).__name__
    if not isinstance(given, list | tuple) or not all(isinstance(each, Detections) for each in given):
        raise InputError(f"the detector {name}: detect should return a list of Detections, one an image")
    if len(given) != len(images):
        raise InputError(f"the detector {name}: gave {len(given)} results for {len(images)} images")
    return list(given)
