"""Fills small holes and removes small islands of a mask, working on its runs instead of its pixels.

The result equals that of segment-anything's `remove_small_regions`, which labels the connected components of the
full-size mask twice with OpenCV. Here union-find joins the runs of neighbouring columns (8-connected), so the cost
grows with the mask's outline instead of the picture's area.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trackmill.models.sam.machine_code import machine_code
from trackmill.models.sam.scan import Intervals


def clean_small_regions(intervals: Intervals, height: int, width: int, min_area: float) -> tuple[Intervals, bool]:
    """Fill holes of fewer than `min_area` pixels, then remove islands of fewer than `min_area` pixels.

    Holes are 8-connected regions outside the mask. The background around the mask counts as a hole too if it is that
    small. If every island is small, the largest stays; of equally large ones, the one that OpenCV labels first.

    Args:
        intervals: (R, 2) runs of the mask, see `trackmill.models.sam.scan.Intervals`.
        height, width: of the picture.
        min_area: pixels.

    Returns:
        The runs, and whether anything changed.
    """
    outside = _components(_cut(_complement(intervals, height * width), height), height)
    small, _ = _small(outside, min_area)
    filled = bool(small.any())
    if filled:
        intervals = _union(intervals, outside[small][:, :2])
    inside = _components(_cut(intervals, height), height)
    small, largest = _small(inside, min_area)
    if not small.any():
        return intervals, filled
    kept = ~small if not small.all() else largest
    return _union(inside[kept][:, :2], intervals[:0]), True


def intervals_box(intervals: Intervals, height: int) -> tuple[int, int, int, int]:
    """First and last column and row (x0, y0, x1, y1, inclusive) of a mask's runs; zeros for an empty mask."""
    if len(intervals) == 0:
        return 0, 0, 0, 0
    first, last = intervals[:, 0], intervals[:, 1] - 1
    x0, x1 = int(first[0] // height), int(last[-1] // height)
    if (first // height != last // height).any():
        return x0, 0, x1, height - 1
    return x0, int((first % height).min()), x1, int((last % height).max())


def intervals_area(intervals: Intervals) -> int:
    """Number of pixels of a mask."""
    return int((intervals[:, 1] - intervals[:, 0]).sum())


def intervals_counts(intervals: Intervals, num_pixels: int) -> NDArray[np.int64]:
    """COCO's run lengths: the first one counts zeros; a trailing run of length 0 is left out."""
    counts = np.diff(np.concatenate([[0], intervals.ravel(), [num_pixels]]))
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def crop_intervals(intervals: Intervals, height: int, box: tuple[int, int, int, int]) -> Intervals:
    """The runs inside a mask's own box (inclusive), as positions in that box."""
    x0, y0, _, y1 = box
    pieces, tall = _cut(intervals, height), y1 - y0 + 1
    first = (pieces[:, 2] - x0) * tall - y0
    runs: Intervals = _union(np.stack([first + pieces[:, 0], first + pieces[:, 1]], axis=1), intervals[:0])
    return runs


def _complement(intervals: Intervals, num_pixels: int) -> Intervals:
    gaps = np.concatenate([[0], intervals.ravel(), [num_pixels]]).reshape(-1, 2)
    return gaps[gaps[:, 0] < gaps[:, 1]]


@machine_code
def _cut(intervals, height):  # type: ignore[no-untyped-def]
    """Split runs at the ends of columns into P pieces: (P, 3) first row, end row (exclusive) and column."""
    total = 0
    for i in range(intervals.shape[0]):
        total += (intervals[i, 1] - 1) // height - intervals[i, 0] // height + 1
    pieces = np.empty((total, 3), np.int64)
    k = 0
    for i in range(intervals.shape[0]):
        begin = intervals[i, 0]
        while begin < intervals[i, 1]:
            column = begin // height
            end = min(intervals[i, 1], (column + 1) * height)
            pieces[k, 0], pieces[k, 1], pieces[k, 2] = begin - column * height, end - column * height, column
            k += 1
            begin = end
    return pieces


@machine_code
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@machine_code
def _components(pieces, height):  # type: ignore[no-untyped-def]
    """Label the pieces of `_cut`: (P, 5) begin and end position, component, its area, its rank in OpenCV's order."""
    n = pieces.shape[0]
    parent = np.arange(n)
    before, start = 0, 0  # the previous column is [before, start)
    for i in range(n):
        if i and pieces[i, 2] != pieces[i - 1, 2]:
            before, start = start, i
            if pieces[before, 2] != pieces[i, 2] - 1:
                before = start
        # Pieces of the previous column that end above this piece cannot touch later pieces of this column either.
        while before < start and pieces[before, 1] < pieces[i, 0]:
            before += 1
        k = before
        while k < start and pieces[k, 0] <= pieces[i, 1]:
            a, b = _root(parent, k), _root(parent, i)
            if a != b:
                parent[max(a, b)] = min(a, b)
            k += 1
    area = np.zeros(n, np.int64)
    rank = np.full(n, np.iinfo(np.int64).max)
    for i in range(n):
        root = _root(parent, i)
        area[root] += pieces[i, 1] - pieces[i, 0]
        # OpenCV labels blocks of 2 x 2 pixels, one row of blocks after the other.
        rank[root] = min(rank[root], (pieces[i, 0] // 2) * (1 << 32) + pieces[i, 2] // 2)
    out = np.empty((n, 5), np.int64)
    for i in range(n):
        root = _root(parent, i)
        out[i, 0] = pieces[i, 2] * height + pieces[i, 0]
        out[i, 1] = pieces[i, 2] * height + pieces[i, 1]
        out[i, 2], out[i, 3], out[i, 4] = root, area[root], rank[root]
    return out


def _small(pieces: NDArray[np.int64], min_area: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which pieces belong to components below `min_area`, and which to the largest component."""
    small = pieces[:, 3] < min_area
    if not len(pieces):
        return small, small
    best = np.lexsort((pieces[:, 4], -pieces[:, 3]))[0]
    return small, pieces[:, 2] == pieces[best, 2]


@machine_code
def _union(a, b):  # type: ignore[no-untyped-def]
    """Merge two ascending lists of runs that do not overlap; runs that touch become one."""
    out = np.empty((a.shape[0] + b.shape[0], 2), np.int64)
    i = j = k = 0
    while i < a.shape[0] or j < b.shape[0]:
        if j == b.shape[0] or (i < a.shape[0] and a[i, 0] < b[j, 0]):
            begin, end = a[i, 0], a[i, 1]
            i += 1
        else:
            begin, end = b[j, 0], b[j, 1]
            j += 1
        if k and out[k - 1, 1] == begin:
            out[k - 1, 1] = end
        else:
            out[k, 0], out[k, 1] = begin, end
            k += 1
    return out[:k]
