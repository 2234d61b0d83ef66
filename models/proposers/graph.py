"""Proposals without a checkpoint: Felzenszwalb's graph segmentation at several scales.

What it gives are *parts* rather than objects: wheels, windows, bags, a shirt, a wall. An object of several colours (a
car, a person) comes in pieces. Stability over time is moderate, because merges flip: of the boxes in one video frame
47 % have a box of IoU >= 0.7 in the next (mean IoU of the best match 0.63; 5 frames apart 0.51 and 34 %). That is
enough for smoke tests and for self-training on views cut from one image; it is not a detector to track with.

Source of the algorithm: Felzenszwalb and Huttenlocher, Efficient Graph-Based Image Segmentation, IJCV 2004. The
figures in this file were measured on photographs and video frames from `sam2/notebooks`, one thread.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, PositiveFloat, model_validator

from trackmill.models.proposers.base import Proposer
from trackmill.models.proposers.refusals import count_refusals, show_refusals
from trackmill.models.proposers.regions import REASONS, Labels, find_regions, gate
from trackmill.schemas.boxes import clip_boxes, nms
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install
from trackmill.schemas.masks import mask_box, resize_cropped
from trackmill.schemas.media import Frame, ProposalSet

Segment = Callable[[NDArray[np.uint8], float], Labels]
"""Cuts an (H, W, 3) uint8 RGB image at one scale into an (H, W) label image."""


class GraphSettings(Settings):
    """Settings of `graph`. The defaults give 46 to 129 proposals on five photographs, 31 to 71 on plainer scenes."""

    backend: Literal["auto", "skimage", "opencv"] = Field(
        "auto",
        description="opencv takes 0.2 CPU seconds an image and needs opencv-contrib-python-headless; skimage takes 0.6 "
        "and is always there. Their proposals differ. auto: opencv where the driver has it, decided once for all.",
    )
    long_side: int = Field(
        512,
        ge=16,
        description="Images are segmented at this long side, never enlarged. 1024 costs four times as much and finds "
        "smaller parts.",
    )
    sigma: float = Field(
        0.8,
        gt=0,
        description="Gaussian blur before segmenting, in pixels. Best match in the next frame: 0.63 at 0.8, 0.48 at "
        "0.5, 0.56 at 1.2.",
    )
    scales: tuple[PositiveFloat, ...] = Field(
        (100.0, 300.0, 900.0),
        min_length=1,
        description="Felzenszwalb's k; larger means larger regions. Each scale costs one segmentation.",
    )
    min_size: int = Field(60, ge=1, le=1 << 30, description="Regions of fewer pixels (at long_side) join a neighbour.")
    min_area: float = Field(0.0015, ge=0, le=1, description="Smallest share of the image a region may cover.")
    max_area: float = Field(0.5, gt=0, le=1, description="Largest share of the image a region may cover.")
    min_extent: float = Field(
        0.35,
        ge=0,
        le=1,
        description="Smallest share of its own box that a region may fill; lower lets frames and strands in.",
    )
    max_aspect: float = Field(4.0, ge=1, description="Longest box: long side over short side.")
    nms_iou: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Of two boxes with an IoU above this, from any scales, the one with the larger extent stays.",
    )

    @model_validator(mode="after")
    def _some_area_is_left(self) -> GraphSettings:
        if self.min_area >= self.max_area:
            raise ValueError(f"min_area {self.min_area} is not below max_area {self.max_area}: nothing would be left")
        return self


class GraphProposer(Proposer):
    """Graph segmentation at several scales, gated by shape, without duplicates; the score is the extent.

    Raises:
        MissingPackage: the backend is not installed here.
    """

    name = "graph"
    version = 1
    Config = GraphSettings

    def __init__(self, config: GraphSettings | None = None) -> None:
        self.config = self.resolve(config or GraphSettings())
        self._segment = _BACKENDS[self.config.backend](self.config)

    def propose(self, frames: Sequence[Frame]) -> list[ProposalSet]:
        return [self._propose_one(frame.image) for frame in frames]

    @classmethod
    def resolve(cls, config: GraphSettings) -> GraphSettings:
        if config.backend == "auto":
            return config.model_copy(update={"backend": "skimage" if _find_ximgproc() is None else "opencv"})
        if config.backend == "opencv" and _find_ximgproc() is None:
            raise MissingPackage(
                f'graph.backend = "opencv" needs cv2.ximgproc: {install("opencv")} (it must be the only opencv '
                'wheel in the environment), or choose backend = "skimage"'
            )
        return config

    @classmethod
    def implementation(cls, config: GraphSettings) -> dict[str, str]:
        backend = cls.resolve(config).backend
        found = {"backend": backend, "pillow": importlib.metadata.version("pillow")}
        if backend == "opencv":
            found["opencv"] = _find_ximgproc().__version__
        else:
            found["scikit-image"] = importlib.metadata.version("scikit-image")
        return found

    def _propose_one(self, image: NDArray[np.uint8]) -> ProposalSet:
        frame_height, frame_width = image.shape[:2]
        small = _shrink(image, self.config.long_side)
        height, width = small.shape[:2]
        scale_y, scale_x = frame_height / height, frame_width / width

        label_images = [self._segment(small, scale) for scale in self.config.scales]
        measured = [find_regions(labels) for labels in label_images]
        boxes = np.concatenate([regions.boxes for regions in measured])
        extents = np.concatenate([regions.extents for regions in measured])
        numbers = np.concatenate([regions.labels for regions in measured])
        levels = np.repeat(np.arange(len(measured)), [len(regions.labels) for regions in measured])
        # Room for the longest reason: NumPy would cut "duplicate" to the width of the ones already there.
        reasons = np.concatenate([gate(regions, height, width, self.config) for regions in measured]).astype(object)

        passed = np.flatnonzero(reasons == "")
        kept = passed[nms(boxes[passed], extents[passed], self.config.nms_iou)]
        reasons[np.setdiff1d(passed, kept)] = "duplicate"

        # The working size is never larger than the frame, so no mask can vanish between the pixels of the frame.
        masks = [
            resize_cropped(
                label_images[levels[i]] == numbers[i],
                tuple(boxes[i].astype(int).tolist()),
                scale_y,
                scale_x,
                frame_height,
                frame_width,
            )
            for i in kept
        ]
        assert None not in masks
        scaled = clip_boxes(boxes * np.array([scale_x, scale_y] * 2, np.float32), frame_height, frame_width)
        refused_boxes, refused_reasons = show_refusals(scaled, reasons, REASONS)
        return ProposalSet(
            boxes=np.array([mask_box(mask) for mask in masks if mask is not None], np.float32).reshape(-1, 4),
            scores=extents[kept],
            masks=masks,
            refused=count_refusals(reasons, REASONS),
            refused_boxes=refused_boxes,
            refused_reasons=refused_reasons,
        )


def _shrink(image: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    ratio = long_side / max(height, width)
    if ratio >= 1:
        return np.ascontiguousarray(image)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _find_ximgproc() -> Any:
    """The module `cv2` where it has the contrib module `ximgproc`, else None."""
    try:
        import cv2
    except ImportError:  # not installed, or a system library (libGL) is missing
        return None
    return cv2 if hasattr(cv2, "ximgproc") else None


def _skimage_backend(config: GraphSettings) -> Segment:
    from skimage.segmentation import felzenszwalb

    def segment(image: NDArray[np.uint8], scale: float) -> Labels:
        labels: Labels = felzenszwalb(image, scale=scale, sigma=config.sigma, min_size=config.min_size, channel_axis=-1)
        return labels

    return segment


def _opencv_backend(config: GraphSettings) -> Segment:
    cv2 = _find_ximgproc()
    segmenters: dict[float, Any] = {
        scale: cv2.ximgproc.segmentation.createGraphSegmentation(config.sigma, scale, config.min_size)
        for scale in config.scales
    }

    def segment(image: NDArray[np.uint8], scale: float) -> Labels:
        labels: Labels = segmenters[scale].processImage(image)
        return labels

    return segment


_BACKENDS: dict[str, Callable[[GraphSettings], Segment]] = {"skimage": _skimage_backend, "opencv": _opencv_backend}
