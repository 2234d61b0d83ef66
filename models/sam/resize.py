"""A chain of bilinear resizes as tables: which source pixels each target pixel mixes, with which weights.

SAM resizes every mask twice, 256 -> 1024 -> picture, and then only compares the result with thresholds. One table per
axis gives any pixel of the result from at most three source pixels per axis, because both resizes mix neighbours. It is
exact to a few units in the last place. Where that does not decide a threshold, the pixel is computed once more in
exactly the arithmetic of torch's own resize. Torch's compiler chooses the order of operations and the fused
multiplications, and no document promises them, so each new size tries every arithmetic in `_RULES` and takes the one
that agrees with torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from trackmill.models.sam.machine_code import machine_code
from trackmill.models.sam.segmenter import ResizeChain

UNKNOWN_RULE = -1
"""Torch's arithmetic is none of `_RULES`; torch itself then decides the pixels within rounding of a threshold."""

_FUSED, _NESTED_FUSED, _PLAIN, _NESTED = 0, 1, 2, 3
_RULES = tuple((rule, fused) for rule in (_FUSED, _NESTED_FUSED, _PLAIN, _NESTED) for fused in (True, False))
"""(arithmetic of `mix`, whether source positions are computed with a fused multiply-add). torch 2.15 on a CPU with
fused multiply-adds uses the first for masks that come in threes and the fourth for single ones."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One bilinear resize along one axis, as torch computes it.

    Args:
        lower, upper: (target,) int64, the two source pixels that each target pixel mixes; equal at the far edge.
        weights: (target, 2) float32 weights of the two.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StageTables:
    """One resize of a chain: both axes, and which arithmetic torch uses for it (or `UNKNOWN_RULE`)."""

    y: Axis
    x: Axis
    rule: int


@dataclass(frozen=True, slots=True)
class Taps:
    """A whole chain along one axis: pixel i is the sum over t of weights[i, t] * source[first[i] + t].

    Args:
        first: (target,) int64.
        weights: (target, 3) float32; 0 beyond the source's end.
        cells: (S, 3) int64, one row for each run of neighbouring target pixels that mix the same source pixels: their
            common `first`, the first target pixel, and the end (exclusive).
        cell_of: (source + 1,) int64, for each source pixel the first cell whose `first` is not before it.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.float32]
    cells: NDArray[np.int64]
    cell_of: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ResizeTables:
    """All tables of a chain.

    Args:
        size: (H, W) of the result.
        needed: (rows, columns) of the source that are read.
        y, x: the whole chain in one step.
        stages: the one or two stages of the chain.
    """

    size: tuple[int, int]
    needed: tuple[int, int]
    y: Taps
    x: Taps
    stages: tuple[StageTables, ...]


@lru_cache(maxsize=64)
def resize_tables(chain: ResizeChain, channels: int) -> ResizeTables | None:
    """Tables of a chain. They are cached by size, because trying torch's arithmetic costs about as much as one resize.

    Returns None for a chain that shrinks and then mixes pixels that were far apart, because that takes more than three
    taps. No SAM model has such a chain.

    Args:
        chain: the resizes.
        channels: masks of one prompt. Torch resizes them as the channels of one picture and chooses its code by them.

    Raises:
        ValueError: more than two stages, or a stage that keeps more than it makes.
    """
    if not 1 <= len(chain.stages) <= 2:
        raise ValueError(f"a resize chain has one or two stages, not {len(chain.stages)}")
    source, stages = chain.source, []
    for each in chain.stages:
        if min(each.keep) < 1 or each.keep[0] > each.size[0] or each.keep[1] > each.size[1]:
            raise ValueError(f"a resize to {each.size} cannot keep {each.keep}")
        stages.append(_stage(source, each.size, channels))
        source = each.keep
    taps_of = [
        _taps([axis(stage) for stage in stages], [each.keep[i] for each in chain.stages], chain.source[i])
        for i, axis in enumerate((attrgetter("y"), attrgetter("x")))
    ]
    y, x = taps_of
    if y is None or x is None:
        return None
    needed = tuple(int((taps.first[:, None] + _reach(taps)).max()) + 1 for taps in (y, x))
    return ResizeTables(chain.size, (needed[0], needed[1]), y, x, tuple(stages))


def _reach(taps: Taps) -> NDArray[np.int64]:
    """(target, 3) offsets of the taps; 0 for taps of weight 0."""
    return np.where(taps.weights != 0, np.arange(3), 0)


def _taps(axes: list[Axis], keeps: list[int], source: int) -> Taps | None:
    """Combine the stages of one axis: replace each tap by the taps of the stage before. None: more than 3 taps."""
    first = axes[0].lower[: keeps[0]]
    weights = np.zeros((keeps[0], 3))
    _add(weights, np.arange(keeps[0]), axes[0].lower[: keeps[0]] - first, axes[0].weights[: keeps[0], 0])
    _add(weights, np.arange(keeps[0]), axes[0].upper[: keeps[0]] - first, axes[0].weights[: keeps[0], 1])
    for axis, keep in zip(axes[1:], keeps[1:]):
        below_first, below = first, weights
        first = below_first[axis.lower[:keep]]
        weights = np.zeros((keep, 3))
        for taps, share in ((axis.lower[:keep], axis.weights[:keep, 0]), (axis.upper[:keep], axis.weights[:keep, 1])):
            for t in range(3):
                value = share * below[taps, t]
                used = value != 0
                offsets = (below_first[taps] + t - first)[used]
                if (offsets > 2).any():
                    return None
                _add(weights, np.flatnonzero(used), offsets, value[used])
    # Taps beyond the end of the source have weight 0; whoever reads the source clamps their index.
    ends = np.flatnonzero(np.diff(first)) + 1
    begins, ends = np.concatenate([[0], ends]), np.concatenate([ends, [len(first)]])
    cells = np.stack([first[begins], begins, ends], axis=1)
    cell_of = np.searchsorted(cells[:, 0], np.arange(source + 1))
    return Taps(first, weights.astype(np.float32), cells, cell_of)


def _add(
    weights: NDArray[np.float64], rows: NDArray[np.int64], taps: NDArray[np.int64], values: NDArray[np.floating[Any]]
) -> None:
    np.add.at(weights, (rows, taps), values)


@lru_cache(maxsize=64)
def _stage(source: tuple[int, int], target: tuple[int, int], channels: int) -> StageTables:
    """Find the arithmetic that reproduces torch's resize of this size to the last bit, on a picture of noise."""
    noise = torch.randn(source, generator=torch.Generator().manual_seed(0))
    stack = noise[None, None].expand(1, channels, *source)
    expected = functional.interpolate(stack, target, mode="bilinear", align_corners=False)[0, 0].numpy()
    for rule, fused in _RULES:
        y, x = _axis(source[0], target[0], fused), _axis(source[1], target[1], fused)
        if _agrees(noise.numpy(), expected, y.lower, y.upper, y.weights, x.lower, x.upper, x.weights, rule):
            return StageTables(y, x, rule)
    return StageTables(_axis(source[0], target[0], True), _axis(source[1], target[1], True), UNKNOWN_RULE)


def _axis(source: int, target: int, fused: bool) -> Axis:
    """Source positions as torch computes them in float32: scale * (i + 0.5) - 0.5, not below 0."""
    scale = np.float32(source) / np.float32(target)
    middle = np.arange(target, dtype=np.float32) + np.float32(0.5)
    if fused:
        position = (middle.astype(np.float64) * np.float64(scale) - 0.5).astype(np.float32)
    else:
        position = middle * scale - np.float32(0.5)
    position = np.maximum(position, np.float32(0))
    lower = np.minimum(position.astype(np.int64), source - 1)
    share = np.clip(position - lower.astype(np.float32), np.float32(0), np.float32(1))
    weights = np.stack([np.float32(1) - share, share], axis=1).astype(np.float32)
    return Axis(lower, np.minimum(lower + 1, source - 1), weights)


@machine_code(inline="always")
def _fma(a, b, c):  # type: ignore[no-untyped-def]
    # A product of two float32 is exact in float64.
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


@machine_code
def mix(a, b, c, d, top, bottom, left, right, rule):  # type: ignore[no-untyped-def]
    """Bilinear mix of the float32 pixels a b (upper row) and c d (lower row), in torch's arithmetic number `rule`."""
    if rule == _FUSED:
        upper = _fma(top * left, a, (top * right) * b)
        return _fma(bottom * right, d, _fma(bottom * left, c, upper))
    if rule == _PLAIN:
        return (top * left) * a + (top * right) * b + (bottom * left) * c + (bottom * right) * d
    if rule == _NESTED:
        return top * (left * a + right * b) + bottom * (left * c + right * d)
    return _fma(top, _fma(left, a, right * b), bottom * _fma(left, c, right * d))


@machine_code
def _agrees(noise, expected, y0, y1, wy, x0, x1, wx, rule):  # type: ignore[no-untyped-def]
    for i in range(expected.shape[0]):
        for j in range(expected.shape[1]):
            ours = mix(
                noise[y0[i], x0[j]],
                noise[y0[i], x1[j]],
                noise[y1[i], x0[j]],
                noise[y1[i], x1[j]],
                wy[i, 0],
                wy[i, 1],
                wx[j, 0],
                wx[j, 1],
                rule,
            )
            if ours != expected[i, j]:
                return False
    return True
