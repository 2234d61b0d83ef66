"""Regions of a label image: their boxes and areas, and why some of them are no proposals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes, box_areas

Labels = NDArray[Any]
"""(H, W) integers from 0; pixels of one region share a number."""

REASONS = ("too_small", "too_large", "low_extent", "elongated", "spans_image", "duplicate")
"""In the order in which the gates are asked; a region is refused for the first that applies."""


class Gates(Protocol):
    """The settings that the gates read; `trackmill.models.proposers.graph.GraphSettings` says what each does."""

    @property
    def min_area(self) -> float: ...
    @property
    def max_area(self) -> float: ...
    @property
    def min_extent(self) -> float: ...
    @property
    def max_aspect(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Regions:
    """Every region of one label image.

    Args:
        labels: (N,) number of each region in the label image.
        boxes: (N, 4) float32 `xyxy`, tight, exclusive.
        areas: (N,) pixels.
    """

    labels: NDArray[np.int64]
    boxes: Boxes
    areas: NDArray[np.int64]

    @property
    def extents(self) -> NDArray[np.float32]:
        """(N,) share of its box that each region fills, in 0..1."""
        extents: NDArray[np.float32] = (self.areas / box_areas(self.boxes)).astype(np.float32)
        return extents


def find_regions(labels: Labels) -> Regions:
    """Measure every region of a label image (H, W); numbers that no pixel has are left out."""
    from scipy import ndimage

    counts = np.bincount(labels.ravel())
    present = np.flatnonzero(counts)
    # `find_objects` takes 0 for background and here 0 is a region like any other.
    slices = ndimage.find_objects(labels.astype(np.int32) + 1)
    boxes = [(slices[i][1].start, slices[i][0].start, slices[i][1].stop, slices[i][0].stop) for i in present]
    return Regions(present, np.array(boxes, np.float32).reshape(-1, 4), counts[present])


def gate(regions: Regions, height: int, width: int, limits: Gates) -> NDArray[np.str_]:
    """Why each region is refused: (N,) of `REASONS` (never `duplicate`), or `""` where it passes.

    Args:
        regions: of a label image of `height` x `width`.
        limits: area and extent limits as shares, the aspect limit as long side over short side.
    """
    shares = regions.areas / (height * width)
    sides = regions.boxes[:, 2:] - regions.boxes[:, :2]  # (N, 2): width, height
    refused = {
        "too_small": shares < limits.min_area,
        "too_large": shares > limits.max_area,
        "low_extent": regions.extents < limits.min_extent,
        "elongated": sides.max(axis=1, initial=0) > limits.max_aspect * sides.min(axis=1, initial=np.inf),
        "spans_image": (sides >= (width, height)).all(axis=1),
    }
    return np.select(list(refused.values()), list(refused), default="")
