"""Run-length masks: equal to pycocotools, safe against hostile counts, lossless when cropped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from trackmill.schemas.masks import (
    CroppedMask,
    check_runs,
    crop_mask,
    decode_counts,
    format_counts,
    mask_area,
    mask_box,
    mask_runs,
    paste_mask,
    resize_cropped,
    runs_box,
    to_coco_rle,
)

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(masks)
def test_same_bytes_as_pycocotools(mask: np.ndarray) -> None:
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert format_counts(mask_runs(mask)) == expected
    assert np.array_equal(decode_counts(expected, *mask.shape), mask)


@given(masks)
def test_cropping_loses_nothing(mask: np.ndarray) -> None:
    crop = crop_mask(mask)
    box = runs_box(mask_runs(mask), mask.shape[0])
    if not mask.any():
        assert crop is None
        assert box is None
        return
    assert crop is not None
    assert box == mask_box(crop)
    assert mask_area(crop) == mask.sum()
    assert np.array_equal(paste_mask(crop, *mask.shape), mask)
    rle = to_coco_rle(crop, *mask.shape)
    assert np.array_equal(coco.decode({"size": list(mask.shape), "counts": str(rle["counts"]).encode()}), mask)


@given(st.text(alphabet=[chr(c) for c in range(33, 127)], max_size=60), st.integers(1, 50), st.integers(1, 50))
def test_hostile_counts_never_do_more_than_raise(counts: str, height: int, width: int) -> None:
    try:
        mask = decode_counts(counts, height, width)
    except ValueError:
        return
    assert mask.shape == (height, width)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("P", "middle of a number"),  # a group that promises another
        ("!!", "alphabet"),  # below COCO's characters
        (format_counts(np.array([0, 10**9])), "1000000000 pixels"),  # a gigabyte out of eight bytes
        ("o" * 20 + "0", "32 bits"),  # a number without end
        ("00O0", "negative"),  # a run of -1
    ],
)
def test_broken_counts_are_named(counts: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_counts(counts, 4, 4)


@pytest.mark.parametrize("runs", [[2**62] * 4, [2**48] * 65536, [2**63 - 1, 2**63 - 1, 18]])
def test_runs_whose_sum_wraps_around_are_refused(runs: list[int]) -> None:
    """Added up in 64 bits these come out as 0, 0 and 16 pixels; expanding them would write over foreign memory."""
    with pytest.raises(ValueError, match="has a run of"):
        check_runs(np.array(runs, np.int64), 4, 4)


def test_a_crop_must_lie_inside_its_frame() -> None:
    crop = CroppedMask(x=6, y=0, height=2, width=3, counts=format_counts(np.array([0, 6])))
    with pytest.raises(ValueError, match="leaves its"):
        paste_mask(crop, 8, 8)


def test_resizing_is_what_nearest_neighbour_does_to_the_whole_frame() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(5, 60, 2)
        mask = np.zeros((height, width), bool)
        y, x = rng.integers(0, height), rng.integers(0, width)
        mask[y : y + rng.integers(1, 20), x : x + rng.integers(1, 20)] = True
        new_height, new_width = rng.integers(2, 60, 2)
        sy, sx = new_height / height, new_width / width
        rows = np.clip(((np.arange(new_height) + 0.5) / sy).astype(int), 0, height - 1)
        columns = np.clip(((np.arange(new_width) + 0.5) / sx).astype(int), 0, width - 1)
        expected = mask[np.ix_(rows, columns)]
        box = runs_box(mask_runs(mask), int(height))
        assert box is not None
        crop = resize_cropped(mask, box, sy, sx, int(new_height), int(new_width))
        if crop is None:
            assert not expected.any()
        else:
            assert np.array_equal(paste_mask(crop, int(new_height), int(new_width)), expected)
