"""What a chain of bilinear resizes comes to, as tables: which source pixels each target pixel mixes, and how much of
each.

SAM resizes every mask twice, 256 -> 1024 -> picture, and looks only at thresholds of the result. One table an axis
gives any pixel of the result from at most three source pixels an axis, because both resizes mix neighbours. It is right
to a few units in the last place. Where that does not decide a threshold, the pixel is evaluated once more in the very
arithmetic of torch's own resize, which is found out by trying (`_RULES`) on each new size: the order of operations and
the fused multiplications are a choice of torch's compiler, and no document promises them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from trackmill.models.sam.segmenter import ResizeChain

UNKNOWN_RULE = -1
"""torch does it in a way that is not in the list; pixels on a threshold are then left to torch itself."""

_FUSED, _NESTED_FUSED, _PLAIN, _NESTED = 0, 1, 2, 3
_RULES = tuple((rule, fused) for rule in (_FUSED, _NESTED_FUSED, _PLAIN, _NESTED) for fused in (True, False))
"""(arithmetic of `mix`, whether source positions are computed with a fused multiply-add). torch 2.15 on a CPU with
fused multiply-adds uses the first for masks that come in threes and the fourth for single ones."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One bilinear resize along one axis, as torch does it.

    Args:
        lower, upper: (target,) int64 source pixels that are mixed; the same one at the far edge.
        weights: (target, 2) float32.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Stage:
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
        cells: (S, 3) int64 of `first`, begin, end: runs of neighbouring target pixels that mix the same source pixels.
        cell_of: (source + 1,) int64, the first cell whose `first` is not before that source pixel.
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
        needed: (rows, columns) of the source that are looked at.
        y, x: the chain in one step.
        stages: the chain step by step, one or two of them.
    """

    size: tuple[int, int]
    needed: tuple[int, int]
    y: Taps
    x: Taps
    stages: tuple[Stage, ...]


@lru_cache(maxsize=64)
def resize_tables(chain: ResizeChain, channels: int) -> ResizeTables | None:
    """Tables of a chain; made once a size, because trying torch's arithmetic costs about as much as one resize.

    None for a chain that first shrinks and then mixes pixels that were far apart: three taps do not hold that. No SAM
    does so.

    Args:
        chain: the resizes.
        channels: masks of one prompt, which torch resizes as the channels of one picture; its code depends on it.

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
    """(target, 3) offsets of the taps that count."""
    return np.where(taps.weights != 0, np.arange(3), 0)


def _taps(axes: list[Axis], keeps: list[int], source: int) -> Taps | None:
    """Multiply the stages of one axis: the taps of the last one, each replaced by its own taps; None: too many."""
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
    # Taps that would lie beyond the source carry no weight; they are moved inside by whoever reads them.
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
def _stage(source: tuple[int, int], target: tuple[int, int], channels: int) -> Stage:
    """Find the arithmetic that gives torch's own numbers for this size, to the last bit, on a picture of noise."""
    noise = torch.randn(source, generator=torch.Generator().manual_seed(0))
    stack = noise[None, None].expand(1, channels, *source)
    theirs = functional.interpolate(stack, target, mode="bilinear", align_corners=False)[0, 0].numpy()
    for rule, fused in _RULES:
        y, x = _axis(source[0], target[0], fused), _axis(source[1], target[1], fused)
        if _agrees(noise.numpy(), theirs, y.lower, y.upper, y.weights, x.lower, x.upper, x.weights, rule):
            return Stage(y, x, rule)
    return Stage(_axis(source[0], target[0], True), _axis(source[1], target[1], True), UNKNOWN_RULE)


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


@numba.njit(nogil=True, cache=True, inline="always")
def _fma(a, b, c):  # type: ignore[no-untyped-def]
    # A product of two float32 is exact in float64.
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


@numba.njit(nogil=True, cache=True)
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


@numba.njit(nogil=True, cache=True)
def _agrees(noise, theirs, y0, y1, wy, x0, x1, wx, rule):  # type: ignore[no-untyped-def]
    for i in range(theirs.shape[0]):
        for j in range(theirs.shape[1]):
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
            if ours != theirs[i, j]:
                return False
    return True
