"""The only module that uses albumentations: its pixel functions, with coordinates in which pixel i covers [i, i + 1).

Trackmill draws random numbers and transforms boxes itself, since albumentations uses another generator, and clips and
drops boxes by rules of its own.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would look for a newer version on the network
try:
    import cv2
    from albumentations.augmentations.blur import functional as blurs
    from albumentations.augmentations.crops import functional as crops
    from albumentations.augmentations.geometric import functional as geometry
    from albumentations.augmentations.pixel import functional as colours
except ImportError as error:
    raise MissingPackage(f"views need cv2 and albumentations 2.0.8: {install('train')}") from error

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""

_HALF_PIXEL = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])


def warp(image: Image, matrix: NDArray[np.float64], border: int) -> Image:
    """Move pixels by `matrix` (3, 3), old to new coordinates; same size, bilinear, `border` in uncovered places."""
    # In OpenCV, integer coordinates are the centres of pixels.
    centres = np.linalg.inv(_HALF_PIXEL) @ matrix @ _HALF_PIXEL
    size = (image.shape[0], image.shape[1])
    warped: Any = geometry.warp_affine(image, centres, cv2.INTER_LINEAR, (border,) * 3, cv2.BORDER_CONSTANT, size)
    return np.asarray(warped, np.uint8)


def resize(image: Image, height: int, width: int) -> Image:
    """Bilinear without antialiasing, as frames are scaled when tracking."""
    resized: Any = geometry.resize(image, (height, width), cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def crop(image: Image, x: int, y: int, height: int, width: int) -> Image:
    """The crop of `height` x `width` pixels with upper left corner (x, y); it shares memory with the image."""
    part: Any = crops.crop(image, x, y, x + width, y + height)
    return np.asarray(part, np.uint8)


def pad(image: Image, height: int, width: int, border: int) -> Image:
    """Enlarge to `height` x `width` to the right and below."""
    below, right = height - image.shape[0], width - image.shape[1]
    padded: Any = geometry.pad_with_params(image, 0, below, 0, right, cv2.BORDER_CONSTANT, (border,) * 3)
    return np.asarray(padded, np.uint8)


def mirror(image: Image) -> Image:
    """Flip horizontally."""
    flipped: Any = cv2.flip(image, 1)  # the same bytes as `image[:, ::-1]`, in a quarter of the time
    return np.asarray(flipped, np.uint8)


def shift_hsv(image: Image, hue: int, saturation: int, value: int) -> Image:
    """Add to hue (0..179, wraps around), saturation and value (0..255, clipped). Grey pixels stay grey."""
    shifted: Any = colours.shift_hsv(image, hue, saturation, value)
    return np.asarray(shifted, np.uint8)


def contrast(image: Image, factor: float) -> Image:
    """Multiply the difference to the mean grey level."""
    changed: Any = colours.adjust_contrast_torchvision(image, factor)
    return np.asarray(changed, np.uint8)


def blur(image: Image, deviation: float) -> Image:
    """Gaussian blur; below a quarter of a pixel nothing happens."""
    if deviation < 0.25:
        return image
    kernel = blurs.create_gaussian_kernel_1d(deviation)
    blurred: Any = cv2.sepFilter2D(image, -1, kernel, kernel)
    return np.asarray(blurred, np.uint8)


def blend(first: Image, second: Image) -> Image:
    """The mean of two pictures of one size, rounded down."""
    # What both have, and half of what one has: the same without sums of more than eight bits, in half the time.
    mixed = np.bitwise_xor(first, second)
    mixed >>= 1
    mixed += first & second
    return mixed
