"""Computes stability, box and runs of each mask in one pass over its low-resolution logits.

No mask is upscaled to the picture's size. Bilinear resizing mixes neighbours with weights that sum to one, so where all
neighbours lie above (or below) a threshold, every pixel between them does too. Only pixels near an object's outline are
computed one by one, and only those within rounding of a threshold are computed again in torch's own arithmetic.

Runs are intervals [begin, end) of column-major pixel positions in the whole picture: the order of COCO's run lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from trackmill.models.sam.machine_code import machine_code
from trackmill.models.sam.resize import UNKNOWN_RULE, Axis, ResizeTables, mix, resize_tables
from trackmill.models.sam.segmenter import ResizeChain

Intervals = NDArray[np.int64]
"""(R, 2) begin and end (exclusive) of each run of pixels inside a mask: column-major, ascending, never touching."""

_ROUNDING = np.float32(4e-6)
"""How far a pixel can be from torch's result, as a share of the mask's largest logit: 30 float32 roundings."""

_HIGH, _LOW, _X0, _Y0, _X1, _Y1, _BEGIN, _END, _STATE = range(9)
_DONE, _ASK_TORCH = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Cutoffs in logits; pixels strictly above a cutoff are inside.

    Args:
        mask: cutoff of the mask itself.
        high, low: cutoffs of the two masks whose IoU is the stability score.
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
    """The scan of M masks.

    Args:
        high, low: (M,) int64 pixels of the crop above the high and the low cutoff.
        boxes: (M, 4) int64 x0, y0, x1, y1, all inclusive: the first and last column and row with a pixel inside, in
            the crop; zeros for an empty mask.
        intervals: the runs of each of the M masks, in the whole picture.
    """

    high: NDArray[np.int64]
    low: NDArray[np.int64]
    boxes: NDArray[np.int64]
    intervals: list[Intervals]

    @property
    def stability(self) -> NDArray[np.float32]:
        """(M,) float32 `calculate_stability_score` of segment-anything: high / low; nan where both are 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient: NDArray[np.float32] = np.divide(self.high.astype(np.float32), self.low.astype(np.float32))
        return quotient


def scan(
    logits: NDArray[np.float32], chain: ResizeChain, thresholds: Thresholds, place: Place, channels: int = 3
) -> Scanned:
    """Scan M masks.

    Args:
        logits: (M, rows, columns) float32, C order, upper left parts of low-resolution masks.
        chain: how the logits become masks of the crop.
        thresholds: the cutoffs.
        place: where the crop lies in the picture.
        channels: masks per prompt. Torch's arithmetic depends on it, so it affects only pixels within rounding of a
            threshold.

    Raises:
        ValueError: `logits` holds a smaller part of the masks than the chain reads.
    """
    tables = resize_tables(chain, channels)
    cutoffs, found = thresholds.as_float32(), np.zeros((len(logits), 9), np.int64)
    if tables is None:
        drawn = [_with_torch(each, chain, channels, cutoffs, place, row) for each, row in zip(logits, found)]
        return Scanned(found[:, _HIGH], found[:, _LOW], found[:, _X0 : _Y1 + 1], drawn)
    if logits.shape[1] < tables.needed[0] or logits.shape[2] < tables.needed[1]:
        raise ValueError(f"logits are {logits.shape[1:]}, but the resize reads {tables.needed} of each mask")
    blocks, buffer = [], np.empty((4096 + 1024 * len(logits), 2), np.int64)
    done = 0
    while done < len(logits):
        until = _scan(logits, cutoffs, *_flat(tables), place.x, place.y, place.height, found, buffer, done)
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
    """The tables as arrays for the compiled code. A chain of one stage repeats it as an unused first stage."""
    last, before = tables.stages[-1], tables.stages[0]
    rules = np.array([last.rule, before.rule, len(tables.stages)])

    def arrays(axis: Axis) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return np.stack([axis.lower, axis.upper]), axis.weights

    y, x = tables.y, tables.x
    composite = (y.first, y.weights, y.cells, y.cell_of, x.first, x.weights)
    return (*composite, *arrays(last.y), *arrays(last.x), *arrays(before.y), *arrays(before.x), rules)


@machine_code
def _source(logits, y, x, y_of, wy, x_of, wx, rule):  # type: ignore[no-untyped-def]
    """One pixel of the first resize. Indices beyond the logits are clamped; such pixels have weight 0."""
    bottom, right = logits.shape[0] - 1, logits.shape[1] - 1
    y0, y1 = min(y_of[0, y], bottom), min(y_of[1, y], bottom)
    x0, x1 = min(x_of[0, x], right), min(x_of[1, x], right)
    a, b, c, d = logits[y0, x0], logits[y0, x1], logits[y1, x0], logits[y1, x1]
    return mix(a, b, c, d, wy[y, 0], wy[y, 1], wx[x, 0], wx[x, 1], rule)


@machine_code
def _pixel(logits, y, x, y_of, wy, x_of, wx, y_of1, wy1, x_of1, wx1, rules):  # type: ignore[no-untyped-def]
    """One pixel of the result in torch's own arithmetic, one resize after the other."""
    if rules[2] == 1:
        return _source(logits, y, x, y_of, wy, x_of, wx, rules[0])
    y0, y1, x0, x1 = y_of[0, y], y_of[1, y], x_of[0, x], x_of[1, x]
    a = _source(logits, y0, x0, y_of1, wy1, x_of1, wx1, rules[1])
    b = _source(logits, y0, x1, y_of1, wy1, x_of1, wx1, rules[1])
    c = _source(logits, y1, x0, y_of1, wy1, x_of1, wx1, rules[1])
    d = _source(logits, y1, x1, y_of1, wy1, x_of1, wx1, rules[1])
    return mix(a, b, c, d, wy[y, 0], wy[y, 1], wx[x, 0], wx[x, 1], rules[0])


@machine_code
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
    """Scan masks from `start` on until all are done or the buffer is full; return the first index that is not done."""
    rows, columns = many.shape[1], many.shape[2]
    width = x_first.shape[0]
    middle, high, low = cutoffs[0], cutoffs[1], cutoffs[2]
    lowest, highest = min(middle, high, low), max(middle, high, low)
    turned = np.empty((columns, rows), np.float32)  # the transposed mask
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
            # A target pixel mixes up to three source rows, so one that starts two rows higher still reaches this row.
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


def upscale_logits(logits: torch.Tensor, chain: ResizeChain, channels: int = 3) -> torch.Tensor:
    """(M, rows, columns) logits to (M, H, W) full-size logits with torch; `scan` is tested against these."""
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
    """Scan one mask at full size. Needed where torch's arithmetic is unknown or logits are not finite."""
    full = upscale_logits(torch.from_numpy(logits)[None], chain, channels)[0].numpy()
    mask = full > cutoffs[0]
    row[_HIGH], row[_LOW] = (full > cutoffs[1]).sum(), (full > cutoffs[2]).sum()
    y, x = np.nonzero(mask)
    row[_X0 : _Y1 + 1] = (x.min(), y.min(), x.max(), y.max()) if len(y) else 0
    positions = np.sort((x + place.x) * place.height + y + place.y)
    breaks = np.flatnonzero(np.diff(positions) != 1)
    begins = positions[np.concatenate([[0], breaks + 1])] if len(positions) else positions
    ends = positions[np.concatenate([breaks, [len(positions) - 1]])] + 1 if len(positions) else positions
    return np.stack([begins, ends], axis=1)
