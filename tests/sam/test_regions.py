"""Small regions on runs against segment-anything's, which label the drawn mask with OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

pytest.importorskip("segment_anything")
pytest.importorskip("cv2")

import torch
from segment_anything.utils.amg import batched_mask_to_box, mask_to_rle_pytorch, remove_small_regions

from trackmill.models.sam.records import binary_mask, cropped_mask
from trackmill.models.sam.regions import clean_small_regions, intervals_area, intervals_box, intervals_counts
from trackmill.schemas.masks import mask_box, paste_mask


def intervals_of(mask: np.ndarray) -> np.ndarray:
    edges = np.diff(np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [0]]))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def random_mask(generator: np.random.Generator) -> np.ndarray:
    size = np.exp(generator.uniform(0, np.log(90), 2)).astype(int)
    if generator.random() < 0.5:
        return generator.random(size) < generator.random()
    return gaussian_filter(generator.normal(size=size), generator.uniform(0.5, 4)) > generator.normal() * 0.1


@pytest.mark.parametrize("seed", range(4))
def test_any_mask(seed: int) -> None:
    generator = np.random.default_rng(seed)
    changed = 0
    for _ in range(300):
        mask = random_mask(generator)
        height, width = mask.shape
        min_area = int(generator.choice([1, 2, 3, 5, 10, 30, 100, 1000, 10_000]))
        filled, holes = remove_small_regions(mask, min_area, "holes")
        expected, islands = remove_small_regions(filled, min_area, "islands")
        runs, was_changed = clean_small_regions(intervals_of(mask), height, width, min_area)
        assert was_changed == (holes or islands)
        assert np.array_equal(binary_mask(runs, (height, width)), expected), (mask.shape, min_area)
        box = batched_mask_to_box(torch.from_numpy(expected)[None])[0].tolist()
        assert list(intervals_box(runs, height)) == box and intervals_area(runs) == expected.sum()
        counts = mask_to_rle_pytorch(torch.from_numpy(np.ascontiguousarray(expected))[None])[0]["counts"]
        assert intervals_counts(runs, mask.size).tolist() == counts
        changed += was_changed
    assert 100 < changed < 300


def test_equal_islands_the_first_one_of_opencv_stays() -> None:
    mask = np.zeros((6, 20), bool)
    mask[1, 0] = mask[0, 11] = mask[4, 3] = True  # the first row of pixels, but the second block of two by two
    expected, _ = remove_small_regions(mask, 9, "islands")
    assert np.array_equal(binary_mask(clean_small_regions(intervals_of(mask), 6, 20, 9)[0], (6, 20)), expected)
    assert expected.sum() == 1


@pytest.mark.parametrize("seed", range(2))
def test_cropped_masks_paste_back(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(100):
        mask = random_mask(generator)
        cropped = cropped_mask(intervals_of(mask), mask.shape)
        if cropped is None:
            assert not mask.any()
            continue
        assert np.array_equal(paste_mask(cropped, *mask.shape), mask)
        x0, y0, x1, y1 = mask_box(cropped)
        assert mask[y0:y1, x0].any() and mask[y0:y1, x1 - 1].any() and mask[y0, x0:x1].any() and mask[y1 - 1].any()
