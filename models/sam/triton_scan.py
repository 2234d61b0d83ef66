"""A Triton kernel for stability and boxes of masks: it reads logits and writes six numbers per mask, without full-size
masks in memory.

Each program evaluates one block of pixels of one mask, from the chain's three taps per axis
(`trackmill.models.sam.resize`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trackmill.models.sam.resize import Taps, resize_tables
from trackmill.models.sam.segmenter import ResizeChain

_BLOCK_Y, _BLOCK_X = 16, 128


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no annotations
def _measure(  # type: ignore[no-untyped-def]
    logits,
    y_first,
    y_weights,
    x_first,
    x_weights,
    found,
    rows,
    columns,
    height,
    width,
    middle,
    high,
    low,
    block_y: tl.constexpr,
    block_x: tl.constexpr,
):
    mask = tl.program_id(0)
    y = tl.program_id(1) * block_y + tl.arange(0, block_y)
    x = tl.program_id(2) * block_x + tl.arange(0, block_x)
    in_y, in_x = y < height, x < width
    first_y = tl.load(y_first + y, mask=in_y, other=0)
    first_x = tl.load(x_first + x, mask=in_x, other=0)
    value = tl.zeros((block_y, block_x), tl.float32)
    for i in tl.static_range(3):
        share_y = tl.load(y_weights + y * 3 + i, mask=in_y, other=0.0)
        row = tl.minimum(first_y + i, rows - 1)  # a tap beyond the last row has weight 0
        across = tl.zeros((block_y, block_x), tl.float32)
        for j in tl.static_range(3):
            share_x = tl.load(x_weights + x * 3 + j, mask=in_x, other=0.0)
            column = tl.minimum(first_x + j, columns - 1)
            place = mask.to(tl.int64) * rows * columns + row[:, None] * columns + column[None, :]
            across += share_x[None, :] * tl.load(logits + place)
        value += share_y[:, None] * across
    within = in_y[:, None] & in_x[None, :]
    inside = within & (value > middle)
    six = found + mask * 6
    tl.atomic_add(six, tl.sum((within & (value > high)).to(tl.int32)))
    tl.atomic_add(six + 1, tl.sum((within & (value > low)).to(tl.int32)))
    tl.atomic_min(six + 2, tl.min(tl.where(inside, x[None, :], width)))
    tl.atomic_min(six + 3, tl.min(tl.where(inside, y[:, None], height)))
    tl.atomic_max(six + 4, tl.max(tl.where(inside, x[None, :], -1)))
    tl.atomic_max(six + 5, tl.max(tl.where(inside, y[:, None], -1)))


def measure_fused(logits: Tensor, chain: ResizeChain, cutoffs: tuple[float, float, float]) -> Tensor:
    """(M, 6) int32: pixels above the high and the low cutoff, first column and row inside, last column and row inside.

    Empty masks have width, height, -1, -1 for a box.

    Args:
        logits: (M, rows, columns) float32, contiguous, on a GPU.
        chain: how the logits become masks.
        cutoffs: cutoffs in logits of the mask, and the high and low ones of the stability score.
    """
    height, width = chain.size
    device = logits.device
    y_first, y_weights, x_first, x_weights = _tables(chain, str(device))
    empty = torch.tensor([0, 0, width, height, -1, -1], dtype=torch.int32, device=device)
    found = empty.repeat(len(logits), 1)
    if len(logits):
        grid = (len(logits), triton.cdiv(height, _BLOCK_Y), triton.cdiv(width, _BLOCK_X))
        _measure[grid](
            logits,
            y_first,
            y_weights,
            x_first,
            x_weights,
            found,
            logits.shape[1],
            logits.shape[2],
            height,
            width,
            *cutoffs,
            block_y=_BLOCK_Y,
            block_x=_BLOCK_X,
        )
    return found


@lru_cache(maxsize=64)
def _tables(chain: ResizeChain, device: str) -> tuple[Tensor, ...]:
    tables = resize_tables(chain, 3)
    assert tables is not None, "the caller checks resize_tables first"

    def moved(taps: Taps) -> Any:
        return torch.from_numpy(taps.first).int().to(device), torch.from_numpy(taps.weights).to(device)

    return (*moved(tables.y), *moved(tables.x))
