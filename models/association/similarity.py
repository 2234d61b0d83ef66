"""How alike detections and tracks are: bi-softmax, cosine and the soft distance gate, on whole matrices.

N detections are rows, T tracks are columns; `products` are the dot products of their embeddings, (N, T) float32, from
which everything follows, so the one matrix product of a frame is made once. Everything stays in float32, as released.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes

Matrix = NDArray[np.float32]

_WIDEST = 80.0
"""exp(-80) is still a full float32; products that span more need an exponential for each direction."""

_SHORTEST = 1e-12
"""Shorter embeddings are divided by this instead of their length: a zero vector has cosine 0 with everything."""

_LARGEST_EXPONENT = 60.0
"""A pixel times exp(60) is farther than any coordinate that is accepted, and a long way inside float32."""


def softmax(products: Matrix, axis: int) -> Matrix:
    """exp(x) over its sum along `axis`, safe at any size of x: (N, T)."""
    powers: Matrix = np.exp(products - products.max(axis=axis, keepdims=True))
    powers /= powers.sum(axis=axis, keepdims=True)
    return powers


def bi_softmax(products: Matrix) -> Matrix:
    """Mean of the softmax over the tracks and the softmax over the detections (MASA, appendix J.4, s_1 of eq. 2).

    With detection r and track t: s_1(t, r) = 1/2 [exp(q_r q_t) / sum_r' exp(q_r' q_t) + exp(q_r q_t) / sum_t' exp(q_r
    q_t')]. Both quotients stay what they are when all exponents are lowered by the greatest, so one exponential serves
    both. Where the least would vanish by that, each direction takes its own.

    Args:
        products: (N, T) float32 with N, T > 0; any finite values whose differences are finite.

    Returns:
        (N, T) float32 in 0..1.
    """
    greatest = products.max()
    if greatest - products.min() > _WIDEST:
        both = softmax(products, axis=1)
        both += softmax(products, axis=0)
    else:
        powers: Matrix = np.exp(products - greatest)
        both = powers / powers.sum(axis=1, keepdims=True)
        powers /= powers.sum(axis=0)
        both += powers
    both *= 0.5
    return both


def inverse_norms(squared_norms: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) one over the lengths of vectors, from their squares."""
    inverses: NDArray[np.float32] = np.divide(1, np.maximum(np.sqrt(squared_norms), np.float32(_SHORTEST)))
    return inverses


def cosines(products: Matrix, row_inverse_norms: Matrix, column_inverse_norms: Matrix) -> Matrix:
    """Cosine of every detection with every track (MASA, appendix J.4, s_2 of eq. 2): (N, T) float32 in -1..1.

    Args:
        products: (N, T).
        row_inverse_norms: (N,) of the detections' embeddings.
        column_inverse_norms: (T,) of the tracks' embeddings.
    """
    cosine: Matrix = products * row_inverse_norms[:, None]
    cosine *= column_inverse_norms
    return cosine


def distance_gate(
    boxes: Boxes, track_boxes: Boxes, frames_since: NDArray[np.int64], max_distance: float, fps: float
) -> NDArray[np.float32]:
    """Soft gate on the distance of box centres, to be multiplied with the similarity (released code, TAO tracker).

    A track last seen dt frames ago may have moved by reach = max_distance exp(dt / (fps / 6)) pixels. Within it the
    gate is 1, beyond it exp(-(distance - reach) / (100 / fps)). The released code lets torch find distances by a
    matrix product from 26 boxes on, which is off by some tenths of a pixel for near centres; here they are exact.

    Args:
        boxes: (P, 4), the detection of each pair.
        track_boxes: (P, 4), where the track of each pair was last seen.
        frames_since: (P,) frames since then.
        max_distance: in pixels, not negative.
        fps: frames per second of the video.

    Returns:
        (P,) float32 in 0..1.
    """
    moved = (boxes[:, :2] + boxes[:, 2:]) / 2 - (track_boxes[:, :2] + track_boxes[:, 2:]) / 2
    distances = np.sqrt(np.vecdot(moved, moved))
    exponents = frames_since.astype(np.float32) / np.float32(fps / 6)
    reach = np.float32(max_distance) * np.exp(np.minimum(exponents, np.float32(_LARGEST_EXPONENT)))
    gate: NDArray[np.float32] = np.exp(np.maximum(distances - reach, 0) / np.float32(-100 / fps))
    return gate  # exp(0) = 1 within the reach
