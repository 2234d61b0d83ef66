"""The keep-ratio rule of mmcv, by hand; pixels against a literal bilinear sum and against OpenCV."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trackmill.models.detectors.frame_scaling import FrameScaling, runs_of_one_size  # noqa: E402


@pytest.mark.parametrize(
    ("limits", "size", "expected"),
    [
        ((1024, 1024), (480, 640), (768, 1024)),  # up
        ((1024, 1024), (1080, 1920), (576, 1024)),  # down: 576.0
        ((1024, 1024), (375, 500), (768, 1024)),
        ((1024, 1024), (333, 500), (682, 1024)),  # 333 * 2.048 = 681.984
        ((1024, 1024), (1024, 1024), (1024, 1024)),
        ((1024, 1024), (1333, 750), (1024, 576)),  # 750 * 1024 / 1333 = 576.14
        ((1333, 800), (1080, 1920), (750, 1333)),  # the long side decides: 749.8
        ((1333, 800), (480, 640), (800, 1067)),  # the short side decides: 1066.67
        ((800, 1333), (480, 640), (800, 1067)),  # which is given first does not matter
        ((64, 64), (1, 5000), (1, 64)),  # never without a pixel
    ],
)
def test_sizes(limits: tuple[int, int], size: tuple[int, int], expected: tuple[int, int]) -> None:
    scaling = FrameScaling(long_side=limits[0], short_side=limits[1])
    assert scaling.size(*size) == expected
    height, width = expected
    factors = [width / size[1], height / size[0]] * 2
    assert scaling.factors(*size).tolist() == pytest.approx(factors, rel=1e-6)


def literal_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel centres, borders repeated, one pixel at a time."""
    result = np.zeros((height, width, 3))
    for y in range(height):
        for x in range(width):
            row = min(max((y + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
            column = min(max((x + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
            top, left = int(row), int(column)
            below, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            a, b = row - top, column - left
            upper = (1 - b) * image[top, left].astype(float) + b * image[top, right]
            lower = (1 - b) * image[below, left].astype(float) + b * image[below, right]
            result[y, x] = (1 - a) * upper + a * lower
    return result


@pytest.mark.parametrize("size", [(11, 17), (40, 30), (32, 32)])
def test_pixels(size: tuple[int, int]) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i in range(2)]
    scaling = FrameScaling(long_side=32, short_side=32)
    height, width = scaling.size(*size)
    scaled = scaling.scale(images, "cpu")
    assert scaled.shape == (2, 3, height, width)
    assert (scaled == scaled.round()).all()
    for image, batch in zip(images, scaled.permute(0, 2, 3, 1).numpy()):
        # Rounded to whole levels: half a level off, and a hair for float32.
        assert np.abs(batch - literal_bilinear(image, height, width)).max() <= 0.501


@pytest.mark.parametrize("size", [(60, 100), (200, 130)])
def test_opencv_differs_by_one_level_at_most(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    scaling = FrameScaling(long_side=128, short_side=128)
    height, width = scaling.size(*size)
    theirs = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).astype(int)
    ours = scaling.scale([image], "cpu")[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_runs() -> None:
    sizes = [(4, 4), (4, 4), (5, 4), (4, 4)]
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    assert runs_of_one_size(images) == [slice(0, 2), slice(2, 3), slice(3, 4)]
    assert runs_of_one_size([]) == []


def test_a_side_without_a_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="long_side"):
        FrameScaling(long_side=0)
