"""segment-anything's reference mask generator, watched: the same records, and how many candidates fell at which gate.

Imports torch and segment-anything; `models.proposers.sam` loads this file only when the proposer is built.

The stages of the reference are called, not copied. Two things make its refusals visible: the predictor notes how many
masks pass the predicted IoU, and every mask that reaches duplicate removal is given a number, which the reference
carries along with the mask through all later filters because it filters every column of its table alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.amg import MaskData, generate_crop_boxes

from schemas.boxes import Boxes

MAX_ELEMENTS = 2**31 - 1
"""`torch.nonzero`, which the reference calls on the masks of a whole batch of points, takes no larger tensor."""

_CROP_OVERLAP = 512 / 1500
"""The reference's default, as a share of the image's short side."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One image's records and refusals.

    Args:
        records: as the reference returns them, masks as uncompressed column-major run lengths.
        low_iou: masks refused for their predicted IoU.
        low_stability: masks refused for their stability (or, with crops, for being cut by the edge of one).
        boxes: (N, 4) exclusive `xyxy` of all masks that reached duplicate removal.
        reasons: N strings: `duplicate`, `duplicate_after_cleaning`, or `""` for the masks in `records`.
    """

    records: list[dict[str, Any]]
    low_iou: int
    low_stability: int
    boxes: Boxes
    reasons: NDArray[np.object_]


class WatchedGenerator(SamAutomaticMaskGenerator):
    """The reference generator with `watch`, which says what was refused besides what was kept."""

    def __init__(self, model: Sam, **settings: Any) -> None:
        super().__init__(model, crop_overlap_ratio=_CROP_OVERLAP, output_mode="uncompressed_rle", **settings)
        self.predictor = _WatchedPredictor(model, self.pred_iou_thresh)
        self._forget()

    def watch(self, image: NDArray[np.uint8]) -> Watched:
        """Records and refusals of one (H, W, 3) uint8 RGB image.

        Raises:
            torch.OutOfMemoryError: `points_per_batch` is too large for the device.
        """
        self._forget()
        records = self.generate(image)
        boxes = np.concatenate([*self._boxes, np.zeros((0, 4), np.float32)])
        reasons = np.full(len(boxes), "duplicate", object)
        reasons[self._unique] = "duplicate_after_cleaning"
        reasons[self._cleaned] = ""
        return Watched(records, self._low_iou, self._low_stability, boxes, reasons)

    def _forget(self) -> None:
        self._low_iou = 0
        self._low_stability = 0
        self._boxes: list[Boxes] = []
        self._num_numbered = 0
        self._unique = np.zeros(0, np.int64)
        self._cleaned = np.zeros(0, np.int64)

    def _generate_masks(self, image: NDArray[np.uint8]) -> MaskData:
        data = super()._generate_masks(image)
        self._unique = self._cleaned = data["number"]
        return data

    def _process_crop(self, *arguments: Any) -> MaskData:
        data = super()._process_crop(*arguments)
        # A crop without masks leaves a tensor of shape (0,), on which the reference fails when all crops are empty.
        data["crop_boxes"] = data["crop_boxes"].reshape(-1, 4)
        return data

    def _process_batch(
        self, points: NDArray[np.float64], im_size: tuple[int, ...], crop_box: list[int], orig_size: tuple[int, ...]
    ) -> MaskData:
        data = super()._process_batch(points, im_size, crop_box, orig_size)
        num_kept = len(data["rles"])
        self._low_iou += self.predictor.num_masks - self.predictor.num_passed
        self._low_stability += self.predictor.num_passed - num_kept

        # The reference's x1, y1 are the last pixel inside, in the crop; ours are the edge after it, in the frame.
        inclusive = data["boxes"].cpu().numpy().astype(np.float32).reshape(-1, 4)
        x, y = crop_box[:2]
        self._boxes.append(inclusive + np.array([x, y, x + 1, y + 1], np.float32))
        data["number"] = torch.arange(self._num_numbered, self._num_numbered + num_kept, device=data["boxes"].device)
        self._num_numbered += num_kept
        return data

    def postprocess_small_regions(self, mask_data: MaskData, min_area: int, nms_thresh: float) -> MaskData:
        data = SamAutomaticMaskGenerator.postprocess_small_regions(mask_data, min_area, nms_thresh)
        self._cleaned = data["number"]
        return data


class _WatchedPredictor(SamPredictor):
    """Notes, for the latest batch of points, how many masks there were and how many pass the predicted IoU."""

    def __init__(self, model: Sam, threshold: float) -> None:
        super().__init__(model)
        self._threshold = threshold
        self.num_masks = self.num_passed = 0

    def predict_torch(self, *arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        masks, predicted_iou, low_res = super().predict_torch(*arguments, **options)
        self.num_masks = predicted_iou.numel()
        # The reference does not filter at all at a threshold of 0; predictions can be negative.
        passed = predicted_iou > self._threshold if self._threshold > 0 else torch.ones_like(predicted_iou)
        self.num_passed = int(passed.sum())
        return masks, predicted_iou, low_res


def fits_input(height: int, width: int, image_size: int, crop_n_layers: int = 0) -> bool:
    """Whether the image and all its crops keep a pixel on their short sides when their long sides become `image_size`.

    The reference fails on an image that does not.
    """
    crops, _ = generate_crop_boxes((height, width), crop_n_layers, _CROP_OVERLAP)
    sides = [(x1 - x0, y1 - y0) for x0, y0, x1, y1 in crops]
    return all(min(side) >= 1 and int(min(side) * image_size / max(side) + 0.5) >= 1 for side in sides)


def largest_batch(height: int, width: int, masks_per_point: int = 3) -> int:
    """Most points in one batch for an image of this size, see `MAX_ELEMENTS`; at least 1."""
    return max(1, MAX_ELEMENTS // (masks_per_point * height * width))


def runs_to_mask(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) mask of column-major run lengths that start with zeros."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")
