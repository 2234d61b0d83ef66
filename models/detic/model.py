"""Detic as users call it: images of any size in, detections in their pixels out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from trackmill.models.detic.mask_pasting import paste_masks
from trackmill.models.detic.network import Dense, DeticNetwork, Found
from trackmill.models.detic.preprocessing import (
    check_image,
    check_resize,
    make_batch,
    pad_batch,
    padded_size,
    resized_ahead,
    resized_size,
)
from trackmill.models.detic.settings import DetectionSettings, Size, require_count
from trackmill.models.detic.vocabulary import as_vocabulary
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import CroppedMask
from trackmill.schemas.names import nearest

Precision = Literal["float32", "bfloat16", "float16"]

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""What `dtype` may say: of the convolutions and fully connected layers, by autocast."""

_RESIZING_THREADS = 4
"""Of a detector on a GPU: Pillow takes about 10 ms for a picture of 1920 x 1080."""


class Detic:
    """A network and the classes that it looks for.

    **What of a result depends on the batch.** Only images that are padded to the same size share a batch, so each is
    padded just as it would be alone: group norms and windows of attention see the padding, and would see more of it
    beside a larger image. What is left is the rounding of sums, which may change with the number of images in a batch:
    measured on the CPU at most 2e-4 pixels and 1e-6 in score, and with them the order of detections that are equally
    good, or which of those is the last one kept. The same images in the same order with the same `batch_size` give the
    same bits; with a `batch_size` of 1, the default on the CPU, each image does so by itself.

    Args:
        network: on any device.
        names: of the classes of its classifier.
        masks: whether `detect` also draws masks.
        dtype: `float32`, `bfloat16` or `float16`, see `trackmill.models.detic.load`.
        compile: compile what is computed for every cell, with torch.compile. Each size of image takes a minute once;
            batches that are not full are filled up.

    Raises:
        InputError: an unknown `dtype`.
    """

    def __init__(
        self,
        network: DeticNetwork,
        names: Sequence[str],
        *,
        masks: bool = False,
        dtype: str = "float32",
        compile: bool = False,
    ) -> None:
        if dtype not in PRECISIONS:
            advice = nearest(str(dtype), PRECISIONS) or f"known: {', '.join(PRECISIONS)}"
            raise InputError(f"there is no dtype {dtype!r}; {advice}")
        self.network = network
        self.names = tuple(names)
        self.masks = masks
        self._dtype = PRECISIONS[dtype]
        self._compiled = compile
        self._dense: Callable[[torch.Tensor], Dense] = (
            torch.compile(network.dense, dynamic=False) if compile else network.dense
        )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def set_vocabulary(self, vocabulary: Any, text_weights: str | os.PathLike[str] | None = None) -> None:
        """Look for other classes from now on. The network stays; only the classifier's matrix is another.

        Args:
            vocabulary: as in `trackmill.models.detic.load`, but not None.
            text_weights: CLIP's, for names of classes.

        Raises:
            InputError: no vocabulary, or vectors that are not CLIP ViT-B/32's.
        """
        found = as_vocabulary(vocabulary, text_weights)
        self.network.set_vocabulary(found)
        self.names = found.names

    def detect(
        self,
        images: Sequence[NDArray[Any]],
        score_threshold: float = 0.3,
        resize: tuple[int, int] | None = (800, 1333),
        one_class_per_proposal: bool = False,
        *,
        nms_iou: float = 0.5,
        class_agnostic_nms: bool = False,
        max_boxes: int = 300,
        batch_size: int | None = None,
    ) -> list[Detections]:
        """Detections of each image.

        Args:
            images: any number of (H, W, 3) RGB arrays of any sizes, uint8, or float with values 0 to 255.
            score_threshold: detections with a score not above it are left out.
            resize: (shorter side, longer side at most) in pixels at which the network looks at images. None: as they
                are. The released demo: (800, 1333). uint8 images are resized as released, by Pillow; float images by
                the same filter without rounding to whole levels.
            one_class_per_proposal: of each proposal only its best class counts, as in the released demo.
            nms_iou, class_agnostic_nms, max_boxes: see `trackmill.models.detic.settings.DetectionSettings`.
            batch_size: images that are in the network together; memory grows with it, by about half a gigabyte an image
                at (800, 1333) in float32. None: 1 on the CPU, where more are not faster, and 8 elsewhere.

        Returns:
            One `Detections` an image, in order: boxes within the image, in its pixels, best first; empty ones are left
            out. `names` are those of the detector; `masks` are None unless it was made with masks.

        Raises:
            InputError: an image or an option that cannot be used; names it.
        """
        settings = DetectionSettings(
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            class_agnostic_nms=class_agnostic_nms,
            max_boxes=max_boxes,
            one_class_per_proposal=one_class_per_proposal,
        )
        if batch_size is None:
            batch_size = 1 if self.device.type == "cpu" else 8
        require_count(batch_size, "batch_size")
        limits = check_resize(resize)
        if getattr(images, "ndim", 4) == 3:
            raise InputError("images: should be a list of images, found one image; write detect([image])")
        arrays = [check_image(image, f"images[{index}]") for index, image in enumerate(images)]
        sizes = [resized_size(array.shape[0], array.shape[1], limits) for array in arrays]
        groups = list(batches([padded_size(size) for size in sizes], batch_size))
        found: dict[int, Detections] = {}
        threads = 0 if self.device.type == "cpu" else _RESIZING_THREADS
        for places, resized in zip(groups, resized_ahead(arrays, sizes, groups, threads), strict=True):
            shapes = [(arrays[place].shape[0], arrays[place].shape[1]) for place in places]
            results = self._detect_batch(resized, shapes, settings, batch_size)
            found.update(zip(places, results, strict=True))
        return [found[place] for place in range(len(arrays))]

    @torch.inference_mode()
    def _detect_batch(
        self, images: list[NDArray[Any]], shapes: list[Size], settings: DetectionSettings, batch_size: int
    ) -> list[Detections]:
        """Of resized images that are padded to one size; `shapes` are those before resizing."""
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        batch = make_batch(images, sizes, self.device)
        if self._compiled:
            batch = pad_batch(batch, batch_size)  # another number of images would be compiled again
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            dense = self._dense(batch)
            if len(batch) > len(images):
                dense = dense.first(len(images))
            found = self.network.detect_dense(dense, sizes, settings)
            scaled = [scale_boxes(each.boxes, size, shape) for each, size, shape in zip(found, sizes, shapes)]
            kept = [(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) for boxes in scaled]
            probabilities = (
                self.network.masks(dense, [each.boxes[keep] for each, keep in zip(found, kept)]) if self.masks else None
            )
        results = []
        for place, (each, boxes, keep, shape) in enumerate(zip(found, scaled, kept, shapes, strict=True)):
            masks = None if probabilities is None else paste_masks(probabilities[place], boxes[keep], *shape)
            results.append(self._detections(each, boxes, keep, masks))
        return results

    def _detections(
        self, found: Found, boxes: torch.Tensor, keep: torch.Tensor, masks: tuple[CroppedMask | None, ...] | None
    ) -> Detections:
        return Detections(
            boxes=boxes[keep].numpy(),
            scores=found.scores[keep].numpy(),
            labels=found.labels[keep].numpy(),
            names=self.names,
            masks=masks,
        )


def scale_boxes(boxes: torch.Tensor, size: Size, to: Size) -> torch.Tensor:
    """Boxes (N, 4) of an image of `size` as those of the same image of size `to`, clipped to it."""
    height, width = to
    factors = boxes.new_tensor([width / size[1], height / size[0]] * 2)
    return torch.minimum((boxes * factors).clamp(min=0), boxes.new_tensor([width, height] * 2))


def batches(sizes: Sequence[Size], batch_size: int) -> Iterator[list[int]]:
    """Places of images that go through the network together: of one size, in their order, at most `batch_size`."""
    groups: dict[Size, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]
