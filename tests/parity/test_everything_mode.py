"""Everything mode gives segment-anything's records, to the byte, on masks painted by a formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("segment_anything")

import torch

import trackmill.models.sam
from tests.parity.synthetic import (
    KINDS,
    assert_same,
    fast_records,
    painting_sam,
    picture,
    reference_records,
)
from tests.proposers.scenes import tiny_sam
from trackmill.models.sam import FastMaskGenerator


def compare(sam: Any, image: Any, **settings: Any) -> int:
    settings = {"points_per_side": 5, "points_per_batch": 8, "stability_score_thresh": 0.8, **settings}
    ours, theirs = fast_records(sam, image, **settings), reference_records(sam, image, **settings)
    assert_same(ours, theirs)
    return len(ours)


@pytest.mark.parametrize(
    "size",
    [
        (96, 128),
        (128, 96),
        (256, 256),  # the second resize does nothing
        (171, 256),
        (300, 420),  # larger than the model's input
        (31, 47),  # small results take another path through torch
        (2, 200),  # two pixels high
        (200, 2),
        (1, 64),
        (3, 3),
        (700, 90),
    ],
)
def test_any_size(size: tuple[int, int]) -> None:
    for seed in range(3):
        compare(painting_sam(seed), picture(*size))


@pytest.mark.parametrize(
    "settings",
    [
        {"pred_iou_thresh": 0.0},
        {"stability_score_thresh": 0.0},  # empty masks stay, with a stability of nan
        {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "min_mask_region_area": 0},
        {"pred_iou_thresh": 0.99},
        {"pred_iou_thresh": 2.0},  # nothing
        {"stability_score_thresh": 1.0},
        {"stability_score_offset": 0.3},
        {"stability_score_offset": 0.0},
        {"stability_score_offset": 4.0, "stability_score_thresh": 0.2},
        {"box_nms_thresh": 0.2},
        {"box_nms_thresh": 1.0},
        {"min_mask_region_area": 0},
        {"min_mask_region_area": 1},
        {"min_mask_region_area": 2000},  # larger than most masks: the largest island stays
        {"points_per_side": 1},
        {"points_per_batch": 7},
        {"points_per_batch": 1000},
        {"points_per_side": None, "point_grids": [np.array([[0.0, 0.0], [1.0, 1.0], [0.31, 0.77]])]},
        {"output_mode": "binary_mask"},
        {"output_mode": "uncompressed_rle"},
    ],
    ids=str,
)
def test_any_setting(settings: dict[str, Any]) -> None:
    counts = [compare(painting_sam(seed, kinds=KINDS), picture(120, 90), **settings) for seed in (3, 4)]
    assert any(counts) == (settings.get("pred_iou_thresh") != 2.0), "an empty comparison shows nothing"


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("size", [(90, 120), (160, 70)])
def test_crops(layers: int, size: tuple[int, int]) -> None:
    for settings in ({}, {"crop_nms_thresh": 0.4, "crop_overlap_ratio": 0.2, "crop_n_points_downscale_factor": 2}):
        found = compare(painting_sam(5), picture(*size), crop_n_layers=layers, points_per_side=4, **settings)
        assert found > 3
    nothing = {"pred_iou_thresh": 2.0, "crop_n_layers": layers}
    assert compare(painting_sam(5), picture(*size), **nothing) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_mask(kind: str) -> None:
    for settings in ({}, {"stability_score_thresh": 0.0, "pred_iou_thresh": 0.0, "min_mask_region_area": 7}):
        compare(painting_sam(6, kinds=(kind,)), picture(75, 100), **settings)


def test_a_mask_that_is_not_a_number() -> None:
    sam = painting_sam(7)
    paint = sam.mask_decoder._mask

    def broken(*arguments: Any) -> Any:
        mask = paint(*arguments)
        mask[3:5, 7] = np.nan
        mask[20, 20] = np.inf
        return mask

    sam.mask_decoder._mask = broken
    assert compare(sam, picture(80, 100), stability_score_thresh=0.0) > 3


def test_the_models_own_size() -> None:
    """1024 pixels, masks of 256: everything at its real scale."""
    for size in ((683, 1024), (900, 600)):
        assert compare(painting_sam(8, 1024, 256), picture(*size), points_per_side=4, points_per_batch=16) > 4


def test_masks_of_other_sizes_than_sams() -> None:
    """A decoder of one's own may draw finer masks than the encoder's input has pixels, or as fine ones."""
    for image_size, side in ((64, 256), (128, 128), (256, 32)):
        assert compare(painting_sam(10, image_size, side), picture(70, 110), points_per_side=3) > 1


def test_batches_and_threads_change_nothing() -> None:
    sam = painting_sam(9)
    images = [picture(60, 80), picture(200, 33), picture(128, 128), picture(60, 80)]
    settings: dict[str, Any] = {"points_per_side": 6, "stability_score_thresh": 0.8, "crop_n_layers": 1}
    alone = [FastMaskGenerator(sam, **settings).generate(image) for image in images]
    together = FastMaskGenerator(sam, **settings, images_per_batch=3, threads=3, points_per_batch=5)
    for ours, theirs in zip(together.generate_batch(images), alone, strict=True):
        assert_same(ours, theirs)
    assert together.generate_batch([]) == []


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_shapes_settings_and_masks_at_random(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(4):
        image_size = int(generator.choice([64, 128, 256]))
        sam = painting_sam(int(generator.integers(1 << 30)), image_size, image_size // 4, kinds=KINDS)
        height, width = np.exp(generator.uniform(np.log(2), np.log(400), 2)).astype(int).tolist()
        if min(height, width) * image_size / max(height, width) < 1:
            continue
        compare(
            sam,
            picture(height, width),
            points_per_side=int(generator.integers(1, 6)),
            pred_iou_thresh=float(generator.uniform(0.7, 1.0)),
            stability_score_thresh=float(generator.uniform(0, 1)),
            stability_score_offset=float(generator.choice([0.1, 0.5, 1.0, 2.5])),
            box_nms_thresh=float(generator.uniform(0.3, 1)),
            min_mask_region_area=int(generator.choice([0, 3, 20, 100, 500])),
        )


def test_mistakes_are_named() -> None:
    sam = painting_sam(0)
    with pytest.raises(ValueError, match="either points_per_side or point_grids"):
        FastMaskGenerator(sam, points_per_side=None)
    with pytest.raises(ValueError, match="needs 2 point_grids"):
        FastMaskGenerator(sam, points_per_side=None, point_grids=[np.zeros((1, 2))], crop_n_layers=1)
    with pytest.raises(ValueError, match="leaves no point for crop layer 2"):
        FastMaskGenerator(sam, points_per_side=3, crop_n_layers=2, crop_n_points_downscale_factor=2)
    with pytest.raises(ValueError, match="output_mode 'rle'"):
        FastMaskGenerator(sam, output_mode="rle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 RGB, this one is \(4, 4\)"):
        FastMaskGenerator(sam).generate(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("size", [(90, 130), (128, 96)])
def test_a_whole_model_run_as_it_is(size: tuple[int, int]) -> None:
    """Encoder and decoder too: nothing but segment-anything's own arithmetic, to the last bit."""
    everything: dict[str, Any] = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 4}
    everything["points_per_batch"] = 5
    for seed in (0, 1):
        sam = tiny_sam(seed, image_size=128)
        ours = fast_records(sam, picture(*size), exact=True, **everything)
        assert_same(ours, reference_records(sam, picture(*size), **everything))
        assert ours


@pytest.mark.slow
def test_vit_b_run_as_it_is_and_rearranged() -> None:
    """A real size with random weights: to the byte as it is, a handful of pixels in millions when rearranged."""
    torch.manual_seed(0)
    sam = trackmill.models.sam.load("vit_b", None)
    image = picture(480, 640)
    settings: dict[str, Any] = {
        "points_per_side": 3,
        "points_per_batch": 9,
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
        "box_nms_thresh": 1.0,
        "min_mask_region_area": 0,
        "output_mode": "binary_mask",
    }
    theirs = reference_records(sam, image, **settings)
    assert_same(fast_records(sam, image, exact=True, **settings), theirs)
    ours = fast_records(sam, image, **settings)
    assert len(ours) == len(theirs) > 9
    # Random masks lie within a tenth of a logit of the cutoff everywhere, so some pixels do change sides.
    changed = sum((mine["segmentation"] != other["segmentation"]).sum() for mine, other in zip(ours, theirs))
    assert changed <= 1e-6 * len(theirs) * image[..., 0].size
    quality = [[record["predicted_iou"] for record in records] for records in (ours, theirs)]
    np.testing.assert_allclose(*quality, atol=1e-5)
