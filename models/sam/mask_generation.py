"""From pictures to masks: encode, decode batch by batch, scan in threads, remove duplicates, mend.

The model serves one call at a time and is never made to wait for the rest: what is drawn is scanned by threads while
the next batch is decoded, and a picture is finished while the next one is encoded.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.utils.amg import generate_crop_boxes

from trackmill.models.sam.candidates import (
    Candidates,
    Crop,
    Gates,
    crop_scores,
    gate,
    join,
    no_candidates,
    trace,
    without_duplicates,
    without_small_regions,
)
from trackmill.models.sam.segmenter import Decoded, Features, Prepared, ResizeChain, Segmenter

R = TypeVar("R")

_WAITING = 4
"""Batches of drawn masks that may wait for a thread: 64 prompts of 256 x 256 logits are 50 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindSettings:
    """What `MaskFinder` does; see `trackmill.models.sam.generator.FastMaskGenerator` for each."""

    point_grids: tuple[NDArray[np.float64], ...]
    pred_iou_thresh: float
    gates: Gates
    box_nms_thresh: float
    crop_n_layers: int
    crop_nms_thresh: float
    crop_overlap_ratio: float
    min_mask_region_area: float
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Masks of one picture, and what became of the others.

    Args:
        size: (H, W) of the picture.
        masks: what is left, in the order of the records.
        low_iou: masks refused for their predicted IoU.
        low_stability: masks refused for their stability, or for being cut by the edge of a crop.
        boxes: (N, 4) int64 inclusive boxes of all masks that reached duplicate removal, in order of their numbers.
        unique: numbers of the masks that duplicate removal kept, before any was mended.
    """

    size: tuple[int, int]
    masks: Candidates
    low_iou: int
    low_stability: int
    boxes: NDArray[np.int64]
    unique: NDArray[np.int64]


@dataclass(slots=True)
class _View:
    """One crop of one picture, and its batches in work."""

    image: NDArray[np.uint8]
    crop: Crop
    layer: int
    prepared: Future[Prepared] | None = None
    features: Features | None = None
    chain: ResizeChain | None = None
    batches: list[Future[Candidates]] = field(default_factory=list)
    num_masks: int = 0
    num_drawn: int = 0

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def pixels(self) -> NDArray[np.uint8]:
        x0, y0, x1, y1 = self.crop
        return np.ascontiguousarray(self.image[y0:y1, x0:x1])


class MaskFinder:
    """Finds masks with one segmenter. Several threads may call it at once: the model serves one after the other.

    Args:
        segmenter: the model.
        settings: what to do.
        points_per_batch: prompts decoded at once; halved for good where the device runs out of memory.
        images_per_batch: pictures encoded at once; the same.
    """

    def __init__(
        self, segmenter: Segmenter, settings: FindSettings, points_per_batch: int, images_per_batch: int
    ) -> None:
        self.segmenter = segmenter
        self.settings = settings
        self.points_per_batch = points_per_batch
        self.images_per_batch = images_per_batch
        self._model_lock = threading.Lock()
        self._warned = False

    def find(self, images: Sequence[NDArray[np.uint8]]) -> list[Found]:
        """Masks of (H, W, 3) uint8 RGB pictures of any sizes.

        Raises:
            ValueError: a picture of another shape or type, or so thin that no pixel of its short side is left when its
                long side is scaled to the model's.
            torch.OutOfMemoryError: one picture or one prompt does not fit the device.
        """
        crops = [self._crops(image) for image in images]
        with (
            ThreadPoolExecutor(self.settings.threads, thread_name_prefix="masks") as scanners,
            ThreadPoolExecutor(1, thread_name_prefix="records") as finisher,
        ):
            every = [_View(image, *crop) for image, of_image in zip(images, crops) for crop in of_image]
            encoded = self._encoded(every, scanners)
            finished = []
            for of_image in crops:
                views = []
                for view in islice(encoded, len(of_image)):
                    self._decode(view, scanners)
                    views.append(view)
                finished.append(finisher.submit(self._finish, views))
            return [each.result() for each in finished]

    def find_in_boxes(self, image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> Candidates:
        """The mask of each box, in their order: nothing is gated and no duplicate removed.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) `xyxy` in pixels.

        Raises:
            as `find`.
        """
        check_picture(image)
        size = (image.shape[0], image.shape[1])
        crop = (0, 0, size[1], size[0])
        gates = Gates(thresholds=self.settings.gates.thresholds, stability=0.0, crop_edges=False)
        prepared = self.segmenter.prepare(image)
        (features,) = self._model(lambda: self.segmenter.encode([prepared]))
        parts = [no_candidates(prompt_size=4)]
        for begin, drawn in self._batches(boxes, lambda batch: self.segmenter.decode(features, boxes=batch)):
            chain = drawn.chain(features)
            found = gate(drawn, boxes[begin : begin + len(drawn.iou)], chain, crop, size, gates)
            parts.append(trace(found, chain, crop, size, gates, channels=1))
        masks = join(parts)
        masks.numbers[:] = np.arange(len(masks))
        return masks

    def _crops(self, image: NDArray[np.uint8]) -> list[tuple[Crop, int]]:
        check_picture(image)
        settings = self.settings
        crops, layers = generate_crop_boxes(image.shape[:2], settings.crop_n_layers, settings.crop_overlap_ratio)
        return [((x0, y0, x1, y1), layer) for (x0, y0, x1, y1), layer in zip(crops, layers)]

    def _encoded(self, views: Sequence[_View], scanners: ThreadPoolExecutor) -> Iterator[_View]:
        """The views with their features, encoded group by group as they are asked for, prepared a group ahead."""
        begin = 0
        while begin < len(views):
            for view in views[begin : begin + 2 * self.images_per_batch]:
                view.prepared = view.prepared or scanners.submit(self.segmenter.prepare, view.pixels())
            group = views[begin : begin + self.images_per_batch]
            prepared = [view.prepared.result() for view in group if view.prepared]
            features = self._attempt(lambda: self.segmenter.encode(prepared), len(group))  # noqa: B023
            if features is None:
                self.images_per_batch = (len(group) + 1) // 2
                self._warn(f"images_per_batch is {self.images_per_batch} from now on")
                continue
            for view, of_view in zip(group, features, strict=True):
                view.features, view.prepared = of_view, None
                yield view
            begin += len(group)

    def _decode(self, view: _View, scanners: ThreadPoolExecutor) -> None:
        """Draw the view's masks; each batch is scanned by a thread while the next one is drawn."""
        features, settings = view.features, self.settings
        assert features is not None
        x0, y0, x1, y1 = view.crop
        points = settings.point_grids[view.layer] * np.array([[x1 - x0, y1 - y0]])
        iou_above = settings.pred_iou_thresh if settings.pred_iou_thresh > 0 else None

        def draw(batch: NDArray[np.float64]) -> Decoded:
            return self.segmenter.decode(features, points=batch, iou_above=iou_above)

        for begin, drawn in self._batches(points, draw):
            prompts = points[begin : begin + len(drawn.iou)]
            view.num_masks += drawn.iou.numel()
            view.num_drawn += len(drawn.kept)
            if len(view.batches) >= _WAITING:
                view.batches[-_WAITING].result()
            view.chain = drawn.chain(features)
            view.batches.append(scanners.submit(gate, drawn, prompts, view.chain, view.crop, view.size, settings.gates))
        view.features = None  # 4 MB, which would stay for as long as the list of pictures takes

    def _batches(
        self, prompts: NDArray[np.float64], draw: Callable[[NDArray[np.float64]], Decoded]
    ) -> Iterator[tuple[int, Decoded]]:
        """Decode prompts batch by batch: the number of the first prompt, and the masks."""
        begin = 0
        while begin < len(prompts):
            batch = prompts[begin : begin + self.points_per_batch]
            drawn = self._attempt(lambda: draw(batch), len(batch))  # noqa: B023
            if drawn is None:
                self.points_per_batch = (len(batch) + 1) // 2
                self._warn(f"points_per_batch is {self.points_per_batch} from now on")
                continue
            yield begin, drawn
            begin += len(batch)

    def _finish(self, views: Sequence[_View]) -> Found:
        """Collect a picture's batches; remove duplicates; mend."""
        settings, size = self.settings, views[0].size
        crops, boxes, numbered = [], [], 0
        for view in views:
            assert view.chain is not None
            found = join([no_candidates(prompt_size=2), *(batch.result() for batch in view.batches)])
            view.batches.clear()
            found.numbers[:] = numbered + np.arange(len(found))
            numbered += len(found)
            boxes.append(found.boxes)
            found = without_duplicates(found, found.iou, settings.box_nms_thresh)
            crops.append(trace(found, view.chain, view.crop, size, settings.gates))
        masks = join(crops)
        if len(views) > 1:
            masks = without_duplicates(masks, crop_scores(masks), settings.crop_nms_thresh)
        unique = masks.numbers
        if settings.min_mask_region_area > 0:
            overlap = max(settings.box_nms_thresh, settings.crop_nms_thresh)
            masks = without_small_regions(masks, size, settings.min_mask_region_area, overlap)
        num_drawn = sum(view.num_drawn for view in views)
        return Found(
            size=size,
            masks=masks,
            low_iou=sum(view.num_masks for view in views) - num_drawn,
            low_stability=num_drawn - numbered,
            boxes=np.concatenate(boxes),
            unique=unique,
        )

    def _model(self, call: Callable[[], R]) -> R:
        with self._model_lock:
            return call()

    def _attempt(self, call: Callable[[], R], size: int) -> R | None:
        """Run the model; None where memory ran out and a smaller batch can be tried."""
        try:
            return self._model(call)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        # Outside the handler, where the failed call's tensors are no longer held by its traceback.
        torch.cuda.empty_cache()
        return None

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the device ran out of memory: {what}, or less; set it to save the failed attempts",
                RuntimeWarning,
                stacklevel=2,
            )


def check_picture(image: NDArray[np.uint8]) -> None:
    """Raise `ValueError` unless it is (H, W, 3) uint8 with pixels in it."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 1:
        raise ValueError(f"a picture is (H, W, 3) uint8 RGB, this one is {image.shape} {image.dtype}")
