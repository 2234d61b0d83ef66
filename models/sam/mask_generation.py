"""From pictures to masks: encode, decode batch by batch, scan in threads, remove duplicates, remove small regions.

The steps are pipelined so that the model does not wait for the other work: threads scan the masks of one batch while
the model decodes the next, and a thread finishes one picture while the model encodes the next. The model runs one call
at a time.
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
    MaskFilter,
    concatenate,
    crop_scores,
    filter_masks,
    no_candidates,
    postprocess_small_regions,
    rasterise,
    without_duplicates,
)
from trackmill.models.sam.segmenter import Decoded, Features, PreparedImage, PromptableSegmenter, ResizeChain

R = TypeVar("R")

_WAITING = 4
"""Decoded batches that may wait for a thread: the logits of 64 prompts, 3 masks of 256 x 256 each, are 50 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """The settings of `PipelinedMaskGenerator`; `trackmill.models.sam.generator.FastMaskGenerator` explains each."""

    point_grids: tuple[NDArray[np.float64], ...]
    pred_iou_thresh: float
    mask_filter: MaskFilter
    box_nms_thresh: float
    crop_n_layers: int
    crop_nms_thresh: float
    crop_overlap_ratio: float
    min_mask_region_area: float
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedMasks:
    """The masks of one picture, and counts of the masks that were dropped.

    Args:
        size: (H, W) of the picture.
        masks: the masks that are left, in the order of the records.
        low_iou: number of masks dropped for their predicted IoU.
        low_stability: number of masks dropped for their stability, or because the edge of a crop cuts them.
        boxes: (N, 4) int64 inclusive boxes of all masks that reached duplicate removal, in order of their numbers.
        unique: numbers of the masks that duplicate removal kept, before small regions were removed.
    """

    size: tuple[int, int]
    masks: Candidates
    low_iou: int
    low_stability: int
    boxes: NDArray[np.int64]
    unique: NDArray[np.int64]


@dataclass(slots=True)
class _CropState:
    """One crop of one picture, and its batches in progress."""

    image: NDArray[np.uint8]
    crop: Crop
    layer: int
    prepared: Future[PreparedImage] | None = None
    features: Features | None = None
    chain: ResizeChain | None = None
    batches: list[Future[Candidates]] = field(default_factory=list)
    num_masks: int = 0
    num_decoded: int = 0

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def pixels(self) -> NDArray[np.uint8]:
        x0, y0, x1, y1 = self.crop
        return np.ascontiguousarray(self.image[y0:y1, x0:x1])


class PipelinedMaskGenerator:
    """Generates masks with one segmenter. Several threads may call it at once; a lock lets the model run one call.

    Args:
        segmenter: the model.
        settings: grids, thresholds and threads.
        points_per_batch: prompts decoded at once. Halved, for all later calls too, when the device runs out of memory.
        images_per_batch: pictures encoded at once; halved likewise.
    """

    def __init__(
        self, segmenter: PromptableSegmenter, settings: GenerationSettings, points_per_batch: int, images_per_batch: int
    ) -> None:
        self.segmenter = segmenter
        self.settings = settings
        self.points_per_batch = points_per_batch
        self.images_per_batch = images_per_batch
        self._model_lock = threading.Lock()
        self._warned = False

    def generate(self, images: Sequence[NDArray[np.uint8]]) -> list[GeneratedMasks]:
        """Masks of (H, W, 3) uint8 RGB pictures of any sizes.

        Raises:
            ValueError: a picture has another shape or dtype, or is so thin that scaling its long side to the model's
                size leaves no pixel of its short side.
            torch.OutOfMemoryError: a single picture or prompt does not fit on the device.
        """
        crops = [self._crops(image) for image in images]
        with (
            ThreadPoolExecutor(self.settings.threads, thread_name_prefix="masks") as scanners,
            ThreadPoolExecutor(1, thread_name_prefix="records") as finisher,
        ):
            every = [_CropState(image, *crop) for image, of_image in zip(images, crops) for crop in of_image]
            encoded = self._encoded(every, scanners)
            finished = []
            for of_image in crops:
                views = []
                for view in islice(encoded, len(of_image)):
                    self._decode(view, scanners)
                    views.append(view)
                finished.append(finisher.submit(self._finish, views))
            return [each.result() for each in finished]

    def generate_from_boxes(self, image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> Candidates:
        """The mask of each box, in the order of the boxes. No mask is filtered and no duplicate is removed.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) `xyxy` in pixels.

        Raises:
            ValueError, torch.OutOfMemoryError: as `generate`.
        """
        check_picture(image)
        size = (image.shape[0], image.shape[1])
        crop = (0, 0, size[1], size[0])
        keep_all = MaskFilter(thresholds=self.settings.mask_filter.thresholds, stability=0.0, crop_edges=False)
        prepared = self.segmenter.prepare(image)
        (features,) = self._model(lambda: self.segmenter.encode([prepared]))
        parts = [no_candidates(prompt_size=4)]
        for begin, decoded in self._batches(boxes, lambda batch: self.segmenter.decode(features, boxes=batch)):
            chain = decoded.chain(features)
            masks = filter_masks(decoded, boxes[begin : begin + len(decoded.iou)], chain, crop, size, keep_all)
            parts.append(rasterise(masks, chain, crop, size, keep_all, channels=1))
        masks = concatenate(parts)
        masks.numbers[:] = np.arange(len(masks))
        return masks

    def _crops(self, image: NDArray[np.uint8]) -> list[tuple[Crop, int]]:
        check_picture(image)
        settings = self.settings
        crops, layers = generate_crop_boxes(image.shape[:2], settings.crop_n_layers, settings.crop_overlap_ratio)
        return [((x0, y0, x1, y1), layer) for (x0, y0, x1, y1), layer in zip(crops, layers)]

    def _encoded(self, views: Sequence[_CropState], scanners: ThreadPoolExecutor) -> Iterator[_CropState]:
        """Yield the crops with their features. A group is encoded when it is needed, and prepared one ahead."""
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

    def _decode(self, view: _CropState, scanners: ThreadPoolExecutor) -> None:
        """Decode the masks of a crop; a thread scans each batch while the model decodes the next."""
        features, settings = view.features, self.settings
        assert features is not None
        x0, y0, x1, y1 = view.crop
        points = settings.point_grids[view.layer] * np.array([[x1 - x0, y1 - y0]])
        iou_above = settings.pred_iou_thresh if settings.pred_iou_thresh > 0 else None

        def decode(batch: NDArray[np.float64]) -> Decoded:
            return self.segmenter.decode(features, points=batch, iou_above=iou_above)

        for begin, decoded in self._batches(points, decode):
            prompts = points[begin : begin + len(decoded.iou)]
            view.num_masks += decoded.iou.numel()
            view.num_decoded += len(decoded.kept)
            if len(view.batches) >= _WAITING:
                view.batches[-_WAITING].result()
            view.chain = decoded.chain(features)
            view.batches.append(
                scanners.submit(filter_masks, decoded, prompts, view.chain, view.crop, view.size, settings.mask_filter)
            )
        view.features = None  # frees 4 MB that would otherwise stay until the whole list of pictures is done

    def _batches(
        self, prompts: NDArray[np.float64], decode: Callable[[NDArray[np.float64]], Decoded]
    ) -> Iterator[tuple[int, Decoded]]:
        """Decode prompts batch by batch; yield the index of the first prompt of each batch, and its masks."""
        begin = 0
        while begin < len(prompts):
            batch = prompts[begin : begin + self.points_per_batch]
            decoded = self._attempt(lambda: decode(batch), len(batch))  # noqa: B023
            if decoded is None:
                self.points_per_batch = (len(batch) + 1) // 2
                self._warn(f"points_per_batch is {self.points_per_batch} from now on")
                continue
            yield begin, decoded
            begin += len(batch)

    def _finish(self, views: Sequence[_CropState]) -> GeneratedMasks:
        """Collect the batches of a picture; remove duplicates; remove small regions."""
        settings, size = self.settings, views[0].size
        crops, boxes, numbered = [], [], 0
        for view in views:
            assert view.chain is not None
            masks = concatenate([no_candidates(prompt_size=2), *(batch.result() for batch in view.batches)])
            view.batches.clear()
            masks.numbers[:] = numbered + np.arange(len(masks))
            numbered += len(masks)
            boxes.append(masks.boxes)
            masks = without_duplicates(masks, masks.iou, settings.box_nms_thresh)
            crops.append(rasterise(masks, view.chain, view.crop, size, settings.mask_filter))
        masks = concatenate(crops)
        if len(views) > 1:
            masks = without_duplicates(masks, crop_scores(masks), settings.crop_nms_thresh)
        unique = masks.numbers
        if settings.min_mask_region_area > 0:
            overlap = max(settings.box_nms_thresh, settings.crop_nms_thresh)
            masks = postprocess_small_regions(masks, size, settings.min_mask_region_area, overlap)
        num_decoded = sum(view.num_decoded for view in views)
        return GeneratedMasks(
            size=size,
            masks=masks,
            low_iou=sum(view.num_masks for view in views) - num_decoded,
            low_stability=num_decoded - numbered,
            boxes=np.concatenate(boxes),
            unique=unique,
        )

    def _model(self, call: Callable[[], R]) -> R:
        with self._model_lock:
            return call()

    def _attempt(self, call: Callable[[], R], size: int) -> R | None:
        """Run the model on a batch of `size`; None if memory ran out and the caller can try a smaller batch."""
        try:
            return self._model(call)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        # After the handler, because the traceback holds the failed call's tensors until then.
        torch.cuda.empty_cache()
        return None

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the device ran out of memory: {what}, or less; set it in advance to avoid failed attempts",
                RuntimeWarning,
                stacklevel=2,
            )


def check_picture(image: NDArray[np.uint8]) -> None:
    """Raise `ValueError` unless the picture is (H, W, 3) uint8 and not empty."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 1:
        raise ValueError(f"a picture is (H, W, 3) uint8 RGB, this one is {image.shape} {image.dtype}")
