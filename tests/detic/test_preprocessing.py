"""Images before the network: what is refused, how they are resized, normalised and padded."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.detic.rebuild import noise_image
from trackmill.models.detic.preprocessing import (
    check_image,
    check_resize,
    make_batch,
    padded_size,
    resize_image,
    resized_ahead,
    resized_size,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (800, 800)),
        ((5000, 3), (1333, 1)),
        ((1, 100_000), (1, 1333)),  # less than half a pixel would be none
        ((800, 1333), (800, 1333)),
        ((2160, 3840), (750, 1333)),
    ],
)
def test_sizes_of_odd_pictures(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(*size, (800, 1333)) == expected
    assert resized_size(*size, None) == size


def test_uint8_is_resized_by_pillow_and_float_by_the_same_filter() -> None:
    image = noise_image(70, 90)
    shrunk = resize_image(image, (20, 31))
    assert np.array_equal(shrunk, np.asarray(Image.fromarray(image).resize((31, 20), Image.Resampling.BILINEAR)))
    as_float = resize_image(image.astype(np.float32), (20, 31))
    assert as_float.dtype == np.float32
    assert 0 < np.abs(as_float - shrunk).max() <= 1.01  # Pillow rounds uint8 after each direction
    assert resize_image(image, (70, 90)) is image


def test_resizing_ahead_in_threads_is_resizing() -> None:
    images = [noise_image(40, 50, seed) for seed in range(5)]
    sizes, groups = [(20, 25), (30, 31), (20, 25), (40, 50), (1, 1)], [[0, 2], [4], [3, 1]]
    plain = list(resized_ahead(images, sizes, groups, 0))
    for found, wanted, group in zip(resized_ahead(images, sizes, groups, 2), plain, groups, strict=True):
        assert [each.shape[:2] for each in found] == [sizes[place] for place in group]
        assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert list(resized_ahead([], [], [], 2)) == []


def test_a_batch_is_normalised_and_then_padded() -> None:
    images = [noise_image(40, 50), noise_image(33, 64, 1).astype(np.float32)]
    batch = make_batch(images, [(40, 50), (33, 64)], CPU)
    assert batch.shape == (2, 3, 64, 64)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(batch[0, :, :40, :50].permute(1, 2, 0), (images[0] - mean) / std, atol=1e-5)
    np.testing.assert_allclose(batch[1, :, :33].permute(1, 2, 0), (images[1] - mean) / std, atol=1e-5)
    assert not batch[0, :, 40:].any()
    assert not batch[0, :, :, 50:].any()
    assert padded_size((32, 33)) == (32, 64)


def test_images_may_be_views_and_are_not_changed() -> None:
    image = noise_image(40, 50)[::-1, ::-1, ::-1]
    image.flags.writeable = False
    copy = image.copy()
    assert torch.equal(make_batch([image], [(40, 50)], CPU), make_batch([copy], [(40, 50)], CPU))
    make_batch([image], [(20, 25)], CPU)
    assert np.array_equal(image, copy)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 5), np.uint8), r"\(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), "RGB"),
        (np.zeros((3, 40, 50), np.uint8), "move the channels"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (np.zeros((4, 5, 3), np.int64), "int64"),
        (np.zeros((4, 5, 3), bool), "bool"),
        (np.full((4, 5, 3), -1.5, np.float32), "0 to 255, found values from -1.5"),
        (np.full((4, 5, 3), 256.0), "to 256"),
        (np.full((4, 5, 3), np.nan, np.float32), "NaN"),
        (np.full((4, 5, 3), np.inf, np.float32), "infinity"),
        (None, "RGB"),
    ],
)
def test_what_is_no_image(image: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"images\\[2\\]: .*{says}"):
        check_image(image, "images[2]")


def test_what_is_an_image() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_image(np.zeros((1, 1, 3), np.float32), "x").dtype == np.float32  # black, and meant so
        assert check_image(np.full((2, 2, 3), 254.7, np.float16), "x").dtype == np.float32
        assert check_image(torch.full((2, 2, 3), 7.5), "x")[0, 0, 0] == 7.5
    with pytest.warns(UserWarning, match="multiply by 255"):
        check_image(np.full((2, 2, 3), 0.5), "x")


@pytest.mark.parametrize("resize", [800, (800,), (0, 1333), "large", (1, 2, 3), ("a", "b"), (800.5, 1333)])
def test_what_is_no_resize(resize: Any) -> None:
    with pytest.raises(ValueError, match="resize"):
        check_resize(resize)
