"""Stability and boxes of masks whose logits lie on a GPU, without drawing all of them at once.

Runs are made on the CPU, from the few masks that are left once duplicates are gone (`models.sam.scan`).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sam.scan import Thresholds, draw
from models.sam.segmenter import ResizeChain

_PIXELS_AT_ONCE = 1 << 26
"""Of all masks that are drawn together: 256 MiB of float32, whatever the number of masks."""


def measure(
    logits: Tensor, chain: ResizeChain, thresholds: Thresholds
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Stability scores (M,) and inclusive boxes (M, 4) as `models.sam.scan.scan` gives them, up to float rounding.

    Args:
        logits: (M, rows, columns) float32 on any device.
        chain: how they become masks.
        thresholds: see `Thresholds`.
    """
    height, width = chain.size
    largest = max(height * width, *(stage.size[0] * stage.size[1] for stage in chain.stages))
    at_once = max(1, _PIXELS_AT_ONCE // largest)
    rows = torch.arange(height, device=logits.device)
    columns = torch.arange(width, device=logits.device)
    parts = []
    for chunk in logits.split(at_once):
        full = draw(chunk, chain, channels=1)
        mask = full > thresholds.mask
        in_column, in_row = mask.any(1), mask.any(2)  # (m, W), (m, H)
        found = mask.any(2).any(1)
        box = [
            torch.where(in_column, columns, width).amin(1),
            torch.where(in_row, rows, height).amin(1),
            torch.where(in_column, columns, -1).amax(1),
            torch.where(in_row, rows, -1).amax(1),
        ]
        counts = [(full > cutoff).sum((1, 2)) for cutoff in (thresholds.high, thresholds.low)]
        parts.append(torch.stack([*counts, *(edge * found for edge in box)], 1))
    if not parts:
        return np.zeros(0, np.float32), np.zeros((0, 4), np.int64)
    # One copy for all masks: each waits for the device.
    numbers = torch.cat(parts).cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        stability = numbers[:, 0].astype(np.float32) / numbers[:, 1].astype(np.float32)
    return stability, numbers[:, 2:]
