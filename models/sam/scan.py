"""One pass over low-resolution logits gives all that full-size masks were needed for: stability, box, runs.

The masks are never drawn at the picture's size. Bilinear resizing mixes neighbours with weights that sum to one, so
where all neighbours lie above (or below) a threshold, every pixel between them does: only the seams near an object's
outline are computed pixel by pixel, and of those only pixels within rounding of a threshold in torch's own arithmetic.

Runs are intervals [begin, end) of column-major pixel positions in the whole picture: the order of COCO's run lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from trackmill.models.sam.resize import UNKNOWN_RULE, Axis, ResizeTables, mix, resize_tables
from trackmill.models.sam.segmenter import ResizeChain

Intervals = NDArray[np.int64]
"""(R, 2) begin and end of each run of pixels inside a mask, ascending, never touching; column-major positions."""

_ROUNDING = np.float32(4e-6)
"""Share of a mask's largest logit by which the short and the long way to a pixel can differ: 30 float32 roundings."""

_HIGH, _LOW, _X0, _Y0, _X1, _Y1, _BEGIN, _END, _STATE = range(9)
_DONE, _ASK_TORCH = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Cutoffs in logits; pixels strictly above are inside.

    Args:
        mask: of the mask itself.
        high, low: of the two masks whose overlap is the stability score.
    """

    mask: float
    high: float
    low: float

    def as_float32(self) -> NDArray[np.float32]:
        """(3,) mask, high, low: torch compares float32 tensors with the cutoff rounded to float32."""
        return np.array([self.mask, self.high, self.low], np.float32)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a crop lies in its picture.

    Args:
        x, y: upper left corner of the crop, pixels.
        height, width: of the whole picture.
    """

    x: int
    y: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Scanned:
    """What is known of M masks.

    Args:
        high, low: (M,) int64 pixels of the crop above the high and the low cutoff.
        boxes: (M, 4) int64 first and last column and row with a pixel inside (x0, y0, x1, y1, both inclusive), in the
            crop; zeros for an empty mask.
        intervals: M runs, in the whole picture.
    """

    high: NDArray[np.int64]
    low: NDArray[np.int64]
    boxes: NDArray[np.int64]
    intervals: list[Intervals]

    @property
    def stability(self) -> NDArray[np.float32]:
        """(M,) `calculate_stability_score` of segment-anything: a float32 quotient; nan where both masks are empty."""
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient: NDArray[np.float32] = np.divide(self.high.astype(np.float32), self.low.astype(np.float32))
        return quotient


def scan(
    logits: NDArray[np.float32], chain: ResizeChain, thresholds: Thresholds, place: Place, channels: int = 3
) -> Scanned:
    """Scan masks.

    Args:
        logits: (M, rows, columns) float32, C order, upper left parts of low-resolution masks.
        chain: how they become masks of the crop.
        thresholds: see `Thresholds`.
        place: where the crop lies.
        channels: masks a prompt; decides only in which arithmetic pixels within rounding of a threshold are evaluated.

    Raises:
        ValueError: `logits` holds less of the masks than the chain looks at.
    """
    tables = resize_tables(chain, channels)
    cutoffs, found = thresholds.as_float32(), np.zeros((len(logits), 9), np.int64)
    if tables is None:
        drawn = [_with_torch(each, chain, channels, cutoffs, place, row) for each, row in zip(logits, found)]
        return Scanned(found[:, _HIGH], found[:, _LOW], found[:, _X0 : _Y1 + 1], drawn)
    if logits.shape[1] < tables.needed[0] or logits.shape[2] < tables.needed[1]:
        raise ValueError(f"logits of {logits.shape[1:]} for a resize that looks at {tables.needed}")
    blocks, buffer = [], np.empty((4096 + 1024 * len(logits), 2), np.int64)
    done = 0
    while done < len(logits):
        until = _scan(  # type: ignore[call-arg]  # Numba's annotations know no arguments of what it compiles
            logits, cutoffs, *_flat(tables), place.x, place.y, place.height, found, buffer, done
        )
        blocks.append((done, until, buffer))
        if until == done:
            buffer = np.empty((4 * len(buffer), 2), np.int64)
        elif until < len(logits):
            buffer = np.empty_like(buffer)
        done = until
    intervals = [block[row[_BEGIN] : row[_END]] for begin, end, block in blocks for row in found[begin:end]]
    for index in np.flatnonzero(found[:, _STATE] == _ASK_TORCH):
        intervals[index] = _with_torch(logits[index], chain, channels, cutoffs, place, found[index])
    return Scanned(found[:, _HIGH], found[:, _LOW], found[:, _X0 : _Y1 + 1], intervals)


def _flat(tables: ResizeTables) -> tuple[object, ...]:
    """The tables as the arrays that compiled code takes; a chain of one stage gets a first stage that is not used."""
    last, before = tables.stages[-1], tables.stages[0]
    rules = np.array([last.rule, before.rule, len(tables.stages)])

    def arrays(axis: Axis) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return np.stack([axis.lower, axis.upper]), axis.weights

    y, x = tables.y, tables.x
    composite = (y.first, y.weights, y.cells, y.cell_of, x.first, x.weights)
    return (*composite, *arrays(last.y), *arrays(last.x), *arrays(before.y), *arrays(before.x), rules)


@numba.njit(nogil=True, cache=True)
def _source(logits, y, x, y_of, wy, x_of, wx, rule):  # type: ignore[no-untyped-def]
    """One pixel of the first resize, from the logits; what lies beyond them has no weight."""
    bottom, right = logits.shape[0] - 1, logits.shape[1] - 1
    y0, y1 = min(y_of[0, y], bottom), min(y_of[1, y], bottom)
    x0, x1 = min(x_of[0, x], right), min(x_of[1, x], right)
    a, b, c, d = logits[y0, x0], logits[y0, x1], logits[y1, x0], logits[y1, x1]
    return mix(a, b, c, d, wy[y, 0], wy[y, 1], wx[x, 0], wx[x, 1], rule)


@numba.njit(nogil=True, cache=True)
def _pixel(logits, y, x, y_of, wy, x_of, wx, y_of1, wy1, x_of1, wx1, rules):  # type: ignore[no-untyped-def]
    """One pixel of the result in torch's own arithmetic, resize after resize."""
    if rules[2] == 1:
        return _source(logits, y, x, y_of, wy, x_of, wx, rules[0])
    y0, y1, x0, x1 = y_of[0, y], y_of[1, y], x_of[0, x], x_of[1, x]
    a = _source(logits, y0, x0, y_of1, wy1, x_of1, wx1, rules[1])
    b = _source(logits, y0, x1, y_of1, wy1, x_of1, wx1, rules[1])
    c = _source(logits, y1, x0, y_of1, wy1, x_of1, wx1, rules[1])
    d = _source(logits, y1, x1, y_of1, wy1, x_of1, wx1, rules[1])
    return mix(a, b, c, d, wy[y, 0], wy[y, 1], wx[x, 0], wx[x, 1], rules[0])


@numba.njit(nogil=True, cache=True)
def _scan(  # type: ignore[no-untyped-def]
    many,
    cutoffs,
    y_first,
    y_taps,
    cells,
    cell_of,
    x_first,
    x_taps,
    y_of,
    wy,
    x_of,
    wx,
    y_of1,
    wy1,
    x_of1,
    wx1,
    rules,
    place_x,
    place_y,
    picture_height,
    found,
    buffer,
    start,
):
    """Scan masks from `start` on until all are done or the buffer is full; returns the first one not done."""
    rows, columns = many.shape[1], many.shape[2]
    width = x_first.shape[0]
    middle, high, low = cutoffs[0], cutoffs[1], cutoffs[2]
    lowest, highest = min(middle, high, low), max(middle, high, low)
    turned = np.empty((columns, rows), np.float32)  # a column of the mask is a row here
    top, bottom = np.empty(columns, np.int64), np.empty(columns, np.int64)
    column = np.empty(rows + 2, np.float32)
    exact = rules[0] != UNKNOWN_RULE and rules[1] != UNKNOWN_RULE
    used = 0
    for index in range(start, many.shape[0]):
        logits, row = many[index], found[index]
        peak = np.float32(0)
        finite = True
        for y in range(rows):
            for x in range(columns):
                value = logits[y, x]
                turned[x, y] = value
                finite &= np.isfinite(value)
                peak = max(peak, abs(value))
        if not finite:
            row[_STATE] = _ASK_TORCH
            row[_BEGIN] = row[_END] = 0
            continue
        near = _ROUNDING * peak
        floor = lowest - near
        for x in range(columns):
            top[x], bottom[x] = rows, -1
            for y in range(rows):
                if turned[x, y] > floor:
                    top[x] = min(top[x], y)
                    bottom[x] = y

        num_high = num_low = 0
        x0, y0, x1, y1 = width, picture_height, -1, -1
        begin = used
        open_begin = open_end = np.int64(-1)
        state = _DONE
        for x in range(width):
            left = x_first[x]
            second, third = min(left + 1, columns - 1), min(left + 2, columns - 1)
            first_row = min(top[left], top[second], top[third])
            last_row = max(bottom[left], bottom[second], bottom[third])
            if last_row < first_row:
                continue
            u, v, w = x_taps[x, 0], x_taps[x, 1], x_taps[x, 2]
            # Target pixels start mixing two rows above the first one that matters.
            first_row = max(first_row - 2, 0)
            for y in range(first_row, min(last_row + 3, rows)):
                column[y] = u * turned[left, y] + v * turned[second, y] + w * turned[third, y]
            base = (x + place_x) * picture_height + place_y
            for c in range(cell_of[first_row], cells.shape[0]):
                first = cells[c, 0]
                if first > last_row:
                    break
                p, q, r = column[first], column[min(first + 1, rows - 1)], column[min(first + 2, rows - 1)]
                least, most = min(p, q, r), max(p, q, r)
                if most <= lowest - near:
                    continue
                cell_begin, cell_end = cells[c, 1], cells[c, 2]
                whole = least > highest + near
                if whole:
                    num_high += cell_end - cell_begin
                    num_low += cell_end - cell_begin
                for y in range(cell_begin, cell_end):
                    inside = whole
                    if not whole:
                        value = y_taps[y, 0] * p + y_taps[y, 1] * q + y_taps[y, 2] * r
                        if abs(value - middle) <= near or abs(value - high) <= near or abs(value - low) <= near:
                            if not exact:
                                state = _ASK_TORCH
                                break
                            value = _pixel(logits, y, x, y_of, wy, x_of, wx, y_of1, wy1, x_of1, wx1, rules)
                        num_high += value > high
                        num_low += value > low
                        inside = value > middle
                    if inside:
                        last = cell_end if whole else y + 1
                        if base + y != open_end:
                            if open_end > open_begin:
                                if used == buffer.shape[0]:
                                    return index
                                buffer[used, 0], buffer[used, 1] = open_begin, open_end
                                used += 1
                            open_begin = base + y
                        open_end = base + last
                        x0, x1 = min(x0, x), x
                        y0, y1 = min(y0, y), max(y1, last - 1)
                    if whole:
                        break
                if state == _ASK_TORCH:
                    break
            if state == _ASK_TORCH:
                break
        if open_end > open_begin:
            if used == buffer.shape[0]:
                return index
            buffer[used, 0], buffer[used, 1] = open_begin, open_end
            used += 1
        row[_HIGH], row[_LOW] = num_high, num_low
        row[_X0], row[_Y0], row[_X1], row[_Y1] = (x0, y0, x1, y1) if x1 >= 0 else (0, 0, 0, 0)
        row[_BEGIN], row[_END], row[_STATE] = begin, used, state
    return many.shape[0]


def draw(logits: torch.Tensor, chain: ResizeChain, channels: int = 3) -> torch.Tensor:
    """(M, H, W) full-size logits of (M, rows, columns) low-resolution ones, by torch: what `scan` is equal to."""
    full = logits.new_zeros((len(logits), *chain.source))
    full[:, : logits.shape[1], : logits.shape[2]] = logits
    full = full[:, None].expand(-1, channels, -1, -1)
    for stage in chain.stages:
        full = functional.interpolate(full, stage.size, mode="bilinear", align_corners=False)
        full = full[..., : stage.keep[0], : stage.keep[1]]
    return full[:, 0]


def _with_torch(
    logits: NDArray[np.float32],
    chain: ResizeChain,
    channels: int,
    cutoffs: NDArray[np.float32],
    place: Place,
    row: NDArray[np.int64],
) -> Intervals:
    """One mask at full size, where the scan cannot decide: torch's arithmetic is unknown, or logits are not finite."""
    full = draw(torch.from_numpy(logits)[None], chain, channels)[0].numpy()
    mask = full > cutoffs[0]
    row[_HIGH], row[_LOW] = (full > cutoffs[1]).sum(), (full > cutoffs[2]).sum()
    y, x = np.nonzero(mask)
    row[_X0 : _Y1 + 1] = (x.min(), y.min(), x.max(), y.max()) if len(y) else 0
    positions = np.sort((x + place.x) * place.height + y + place.y)
    breaks = np.flatnonzero(np.diff(positions) != 1)
    begins = positions[np.concatenate([[0], breaks + 1])] if len(positions) else positions
    ends = positions[np.concatenate([breaks, [len(positions) - 1]])] + 1 if len(positions) else positions
    return np.stack([begins, ends], axis=1)
