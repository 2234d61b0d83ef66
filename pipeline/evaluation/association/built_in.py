"""Embeddings that need no model: a colour histogram as the baseline, and random and perfect ones as the bounds."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.association.sequences import BoxSequence

_BINS = 8
_BITS = 12
_HALF = 1 << _BITS - 1
_HALF_DEGREES = np.rint(np.append(0, 30 * 2**_BITS / np.arange(1, 256))).astype(np.int64)
"""(256,) half degrees of hue for one step of channel difference, by spread of the channels; 0 for spread 0."""
_OF_255 = np.rint(np.append(0, 255 * 2**_BITS / np.arange(1, 256))).astype(np.int64)
"""(256,) saturation for one step of spread, by value."""
_SIZE = 256
"""Length of random vectors; two of this length are nearly orthogonal."""


def hsv_histogram(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Histogram of the pixels inside each box over 8 x 8 x 8 bins of hue, saturation and value.

    Box corners are truncated to whole pixels. Hue in half degrees (0..179), saturation and value (0..255) are first
    rounded to integers, in the 12-bit fixed point of OpenCV's conversion of 8-bit pictures: the benchmark's reference
    numbers depend on it, because other rounding moves some pixels into the next bin.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) `xyxy` in pixels; what lies outside the image is left out.

    Returns:
        (N, 512); zeros for a box without a pixel.
    """
    height, width = image.shape[:2]
    limit = np.array([width, height, width, height], np.float32)
    corners = np.clip(boxes, 0, limit).astype(np.int64)
    histograms = [
        np.bincount(_cells(image[y0:y1, x0:x1].reshape(-1, 3)), minlength=_BINS**3) for x0, y0, x1, y1 in corners
    ]
    return np.array(histograms, np.float32).reshape(len(boxes), _BINS**3)


def _cells(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    red, green, blue = pixels.astype(np.int32).T
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    # Hue is an offset of up to a sixth of the circle from the largest channel; gray counts as hue 0.
    lead = np.where(
        value == red, green - blue, np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    )
    hue = (lead * _HALF_DEGREES[spread] + _HALF >> _BITS) % 180
    saturation = spread * _OF_255[value] + _HALF >> _BITS
    cells: NDArray[np.int64] = (hue * _BINS // 180 * _BINS + saturation * _BINS // 256) * _BINS + value * _BINS // 256
    return cells


def random_vectors(sequence: BoxSequence, seed: int) -> NDArray[np.float32]:
    """(N, 256) random directions without information; they depend only on the seed and the sequence's name and size."""
    rng = np.random.default_rng([seed, zlib.crc32(sequence.name.encode())])
    return rng.standard_normal((len(sequence), _SIZE), np.float32)


def identity_vectors(sequence: BoxSequence, seed: int) -> NDArray[np.float32]:
    """(N, 256) one random direction for each true identity: a perfect embedding."""
    people, who = np.unique(sequence.ids, return_inverse=True)
    rng = np.random.default_rng([seed, zlib.crc32(sequence.name.encode())])
    directions: NDArray[np.float32] = rng.standard_normal((len(people), _SIZE), np.float32)[who]
    return directions
