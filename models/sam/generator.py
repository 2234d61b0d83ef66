"""SAM's automatic mask generation: three masks per point of a grid, filtered, without duplicates; or masks of boxes.

The records equal those of segment-anything's `SamAutomaticMaskGenerator`, in the same order. Three changes make it
faster: masks are never upscaled to the picture's size (`trackmill.models.sam.scan`), masks with a low predicted IoU are
not upscaled at all (`trackmill.models.sam.decoder`), and threads do the other work while the model runs
(`trackmill.models.sam.mask_generation`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from segment_anything.utils.amg import build_all_layer_point_grids, generate_crop_boxes

from trackmill.models.sam.candidates import MaskFilter
from trackmill.models.sam.mask_generation import GeneratedMasks, GenerationSettings, PipelinedMaskGenerator
from trackmill.models.sam.records import OutputMode, make_records
from trackmill.models.sam.sam1 import Sam1Segmenter
from trackmill.models.sam.scan import Thresholds
from trackmill.models.sam.segmenter import PromptableSegmenter
from trackmill.schemas.errors import InputError


class FastMaskGenerator:
    """Drop-in for segment-anything's `SamAutomaticMaskGenerator`.

    Argument names and meanings are the reference's. The defaults are the MASA paper's. They differ from the reference
    in
    two: small regions of under 100 pixels are removed (reference: none), and masks are COCO RLE (reference: arrays).

    Args:
        sam: a `Sam` of segment-anything (also with MobileSAM's encoder), or any `PromptableSegmenter`.
        points_per_side: n for a grid of n x n points; decoder time grows with n x n. None: give `point_grids`.
        points_per_batch: points decoded at once. More is faster on a GPU and takes more memory. Halved when memory runs
            out.
        pred_iou_thresh: drops masks whose predicted IoU is not above it, before they are upscaled; 0 drops none.
        stability_score_thresh: drops masks whose stability score (the IoU of the masks at the raised and the lowered
            cutoff) is below it; 0 drops none.
        stability_score_offset: how far the cutoff is raised and lowered for the stability score, in logits.
        box_nms_thresh: of two masks whose boxes have a larger IoU, the one of higher predicted IoU stays.
        crop_n_layers: also runs on 4, 16, ... crops, for small objects, at as many times the cost.
        crop_nms_thresh: like `box_nms_thresh`, between crops; masks of smaller crops stay.
        crop_overlap_ratio: how far crops overlap, as a share of the picture's short side.
        crop_n_points_downscale_factor: the grid of layer i has points_per_side / factor^i points per side.
        point_grids: (P, 2) points in [0, 1] for each layer, in place of points_per_side.
        min_mask_region_area: fills holes and removes islands of fewer pixels; 0 leaves masks as they are.
        output_mode: `coco_rle`, `uncompressed_rle` or `binary_mask`.
        images_per_batch: pictures (or crops) encoded together. Another batch may change the last bits of the logits,
            and so masks within rounding of a threshold.
        precision: `float32`, or `bfloat16`, which gives other masks.
        compiled: compile encoder and decoder with torch.compile; the first picture waits for it.
        exact: run the model's modules as they are. Without it encoder and decoder are rearranged, which is several
            times faster and changes the last bits of the logits (by a few 1e-6 of their spread). Only pixels that close
            to the cutoff can differ. With random weights, where all masks are that close, 2 in 15 million differed.
        threads: threads for all work but the model's; 0: one on a CPU, up to four beside a GPU.

    Raises:
        ValueError: settings contradict each other.
    """

    def __init__(
        self,
        sam: Sam | PromptableSegmenter,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[NDArray[np.float64]] | None = None,
        min_mask_region_area: int = 100,
        output_mode: OutputMode = "coco_rle",
        *,
        images_per_batch: int = 1,
        precision: Literal["float32", "bfloat16"] = "float32",
        compiled: bool = False,
        exact: bool = False,
        threads: int = 0,
    ) -> None:
        if (points_per_side is None) == (point_grids is None):
            raise InputError("give either points_per_side or point_grids, not both and not neither")
        if output_mode not in ("coco_rle", "uncompressed_rle", "binary_mask"):
            raise InputError(f"no output_mode {output_mode!r}: coco_rle, uncompressed_rle or binary_mask")
        if points_per_batch < 1 or images_per_batch < 1:
            raise InputError("points_per_batch and images_per_batch are at least 1")
        if points_per_side is not None and points_per_side < crop_n_points_downscale_factor**crop_n_layers:
            raise InputError(
                f"points_per_side = {points_per_side} leaves no point for crop layer {crop_n_layers}: lower "
                f"crop_n_points_downscale_factor = {crop_n_points_downscale_factor} or crop_n_layers"
            )
        segmenter: PromptableSegmenter = (
            Sam1Segmenter(sam, precision=precision, compiled=compiled, exact=exact) if isinstance(sam, Sam) else sam
        )
        grids = point_grids or build_all_layer_point_grids(
            points_per_side, crop_n_layers, crop_n_points_downscale_factor
        )
        if len(grids) <= crop_n_layers:
            raise InputError(f"crop_n_layers = {crop_n_layers} needs {crop_n_layers + 1} point_grids")
        middle, offset = segmenter.mask_threshold, stability_score_offset
        settings = GenerationSettings(
            point_grids=tuple(grids),
            pred_iou_thresh=pred_iou_thresh,
            mask_filter=MaskFilter(
                thresholds=Thresholds(mask=middle, high=middle + offset, low=middle - offset),
                stability=stability_score_thresh,
            ),
            box_nms_thresh=box_nms_thresh,
            crop_n_layers=crop_n_layers,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            min_mask_region_area=min_mask_region_area,
            threads=threads or (1 if segmenter.device.type == "cpu" else min(4, os.cpu_count() or 1)),
        )
        self.pipelined = PipelinedMaskGenerator(segmenter, settings, points_per_batch, images_per_batch)
        self.output_mode: OutputMode = output_mode

    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Records of one (H, W, 3) uint8 RGB picture, see `trackmill.models.sam.records.make_records`.

        Raises:
            ValueError, torch.OutOfMemoryError: see `PipelinedMaskGenerator.generate`.
        """
        return self.generate_batch([image])[0]

    def generate_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[list[dict[str, Any]]]:
        """Records of several pictures of any sizes. Threads finish a picture while the model runs on the next."""
        return [make_records(each.masks, each.size, self.output_mode) for each in self.generate_masks(images)]

    def generate_from_boxes(self, image: NDArray[np.uint8], boxes: NDArray[np.floating[Any]]) -> list[dict[str, Any]]:
        """One record for each box, in the order of the boxes. No mask is filtered and no duplicate is removed.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) `xyxy` in pixels.
        """
        masks = self.pipelined.generate_from_boxes(image, np.asarray(boxes, np.float64).reshape(-1, 4))
        return make_records(masks, (image.shape[0], image.shape[1]), self.output_mode)

    def generate_masks(self, images: Sequence[NDArray[np.uint8]]) -> list[GeneratedMasks]:
        """The masks that `generate_batch` turns into records, with counts of the masks that were dropped."""
        return self.pipelined.generate(images)


def fits_input(
    height: int, width: int, image_size: int, crop_n_layers: int = 0, crop_overlap_ratio: float = 512 / 1500
) -> bool:
    """Whether scaling to `image_size` leaves the picture and each of its crops at least one pixel on the short side.

    The reference fails on other pictures.
    """
    crops, _ = generate_crop_boxes((height, width), crop_n_layers, crop_overlap_ratio)
    sides = [(x1 - x0, y1 - y0) for x0, y0, x1, y1 in crops]
    return all(min(side) >= 1 and int(min(side) * (image_size / max(side)) + 0.5) >= 1 for side in sides)
