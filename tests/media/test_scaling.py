"""Annotations in stored pixels: exact factors, and the same masks as by scaling the whole frame."""

from __future__ import annotations

import numpy as np
import pytest

from trackmill.pipeline.media.scaling import scale_annotations, scale_mask, stored_size
from trackmill.schemas.masks import crop_mask, mask_box, resize_cropped
from trackmill.schemas.media import Annotations


@pytest.mark.parametrize(
    ("original", "limit", "expected"),
    [
        ((1500, 2250), 1024, (683, 1024)),
        ((2250, 1500), 1024, (1024, 683)),
        ((848, 480), 1024, (848, 480)),
        ((5, 3), 2, (2, 1)),
        ((10_000, 1), 16, (16, 1)),
    ],
)
def test_stored_size(original, limit, expected):
    assert stored_size(original, limit) == expected


def test_mask_equals_scaling_the_whole_frame():
    rng = np.random.default_rng(0)
    for _ in range(300):
        original = tuple(rng.integers(1, 60, 2).tolist())
        stored = stored_size(original, int(rng.integers(1, 40)))
        mask = np.zeros(original, bool)
        y, x = (int(rng.integers(side)) for side in original)
        mask[y : y + int(rng.integers(1, 20)), x : x + int(rng.integers(1, 20))] = True
        mask &= rng.random(original) < rng.choice([0.2, 0.9, 1.0])
        crop = crop_mask(mask)
        if crop is None:
            continue
        scale_y, scale_x = stored[0] / original[0], stored[1] / original[1]
        whole = resize_cropped(mask, mask_box(crop), scale_y, scale_x, *stored)
        assert scale_mask(crop, original, stored) == whole


def test_objects_that_vanish_are_dropped_with_everything_of_theirs():
    mask = crop_mask(np.pad(np.ones((20, 20), bool), ((0, 80), (0, 180))))
    annotations = Annotations(
        boxes=np.array([[0, 0, 20, 20], [50, 50, 53, 53], [190, 90, 250, 130]], np.float32),
        ids=[7, 8, 9],
        scores=[0.5, 0.6, 0.7],
        masks=[mask, None, None],
        ignore=np.array([[0, 0, 100, 100], [0, 0, 3, 3]], np.float32),
    )
    scaled = scale_annotations(annotations, (100, 200), (25, 50))
    assert scaled.boxes.tolist() == [[0, 0, 5, 5], [47.5, 22.5, 50, 25]]
    assert (scaled.ids, scaled.scores) == ([7, 9], [0.5, 0.7])
    assert mask_box(scaled.masks[0]) == (0, 0, 5, 5) and scaled.masks[1] is None
    assert scaled.ignore.tolist() == [[0, 0, 25, 25]]


def test_mask_between_the_pixels_becomes_none():
    line = np.zeros((100, 100), bool)
    line[:, 3] = True
    annotations = Annotations(
        boxes=np.array([[3, 0, 13, 100]], np.float32), ids=[1], scores=[1.0], masks=[crop_mask(line)]
    )
    scaled = scale_annotations(annotations, (100, 100), (10, 10))
    assert scaled.ids == [1] and scaled.masks == [None]


def test_nothing_stays_nothing():
    scaled = scale_annotations(Annotations(), (100, 100), (10, 10))
    assert scaled.boxes.shape == (0, 4) and scaled.ignore.shape == (0, 4) and scaled.boxes.dtype == np.float32


def test_same_size_changes_nothing_but_cuts_at_the_border():
    annotations = Annotations(
        boxes=np.array([[-5, 2, 30, 60]], np.float32), ids=[1], scores=[1.0], masks=[crop_mask(np.ones((50, 40), bool))]
    )
    scaled = scale_annotations(annotations, (50, 40), (50, 40))
    assert scaled.boxes.tolist() == [[0, 2, 30, 50]] and scaled.masks == annotations.masks
