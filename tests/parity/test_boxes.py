"""Masks of boxes are those of segment-anything's predictor, to the byte where the logits are the same."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("segment_anything")

import torch
from segment_anything import SamPredictor

from tests.parity.synthetic import KINDS, painting_sam, picture
from tests.proposers.scenes import tiny_sam
from trackmill.models.sam import FastMaskGenerator


def boxes_in(height: int, width: int, count: int) -> np.ndarray:
    generator = np.random.default_rng(count)
    corners = generator.uniform(0, 1, (count, 2, 2)) * [width, height]
    return np.concatenate([corners.min(1), corners.max(1)], axis=1)


@pytest.mark.parametrize("size", [(90, 130), (300, 210), (2, 90)])
@pytest.mark.parametrize("model", ["painted", "tiny"])
def test_boxes(model: str, size: tuple[int, int]) -> None:
    sam = painting_sam(1, kinds=KINDS) if model == "painted" else tiny_sam(1)
    image, boxes = picture(*size), boxes_in(*size, count=21)
    generator = FastMaskGenerator(sam, points_per_batch=8, output_mode="binary_mask")
    records = generator.generate_from_boxes(image, boxes)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    scaled = torch.as_tensor(predictor.transform.apply_boxes(boxes, size), dtype=torch.float)
    with torch.inference_mode():
        masks, iou, _ = predictor.predict_torch(None, None, boxes=scaled, multimask_output=False)
    assert len(records) == len(boxes)
    for record, box, mask, quality in zip(records, boxes, masks[:, 0].numpy(), iou[:, 0].numpy()):
        assert record["box_coords"] == box.tolist()
        assert record["predicted_iou"] == pytest.approx(quality.item(), abs=1e-6)
        # A tiny model's decoder is folded, so its logits differ in their last bits.
        assert (record["segmentation"] != mask).sum() <= (0 if model == "painted" else 2)
        assert record["area"] == record["segmentation"].sum()


def test_no_boxes() -> None:
    assert FastMaskGenerator(painting_sam(1)).generate_from_boxes(picture(30, 40), np.zeros((0, 4))) == []
