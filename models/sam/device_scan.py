"""Stability scores and boxes of masks whose logits are on a GPU. With Triton no mask is upscaled to full size.

Runs are made on the CPU (`trackmill.models.sam.scan`), after duplicate removal has left few masks.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trackmill.models.sam.resize import resize_tables
from trackmill.models.sam.scan import Thresholds, upscale_logits
from trackmill.models.sam.segmenter import ResizeChain, ResizeStage

_PIXELS_AT_ONCE = 1 << 26
"""Pixels of all masks that are upscaled at once without Triton: 256 MiB of float32, however many masks there are."""


def measure_masks(
    logits: Tensor, chain: ResizeChain, thresholds: Thresholds
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Stability scores (M,) and inclusive boxes (M, 4), as `trackmill.models.sam.scan.scan` gives them up to rounding.

    Args:
        logits: (M, rows, columns) float32 on any device.
        chain: how the logits become masks.
        thresholds: the cutoffs.
    """
    fused = logits.is_cuda and _fused_works(str(logits.device)) and resize_tables(chain, 3) is not None
    # One copy to the CPU for all masks, because each copy waits for the device.
    numbers = (_fused if fused else _upscaled)(logits.contiguous(), chain, thresholds).cpu().numpy().astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        stability: NDArray[np.float32] = np.divide(numbers[:, 0].astype(np.float32), numbers[:, 1].astype(np.float32))
    boxes = numbers[:, 2:]
    return stability, np.where(boxes[:, 2:3] >= 0, boxes, 0)


def _fused(logits: Tensor, chain: ResizeChain, thresholds: Thresholds) -> Tensor:
    from trackmill.models.sam.triton_scan import measure_fused

    return measure_fused(logits, chain, (thresholds.mask, thresholds.high, thresholds.low))


def _upscaled(logits: Tensor, chain: ResizeChain, thresholds: Thresholds) -> Tensor:
    """(M, 6) as `trackmill.models.sam.triton_scan.measure_fused`, from masks that are upscaled some at a time."""
    height, width = chain.size
    largest = max(height * width, *(stage.size[0] * stage.size[1] for stage in chain.stages))
    rows = torch.arange(height, device=logits.device)
    columns = torch.arange(width, device=logits.device)
    parts = [torch.zeros(0, 6, dtype=torch.int64, device=logits.device)]
    for chunk in logits.split(max(1, _PIXELS_AT_ONCE // largest)) if len(logits) else ():
        full = upscale_logits(chunk, chain, channels=1)
        mask = full > thresholds.mask
        in_column, in_row = mask.any(1), mask.any(2)  # (m, W), (m, H)
        numbers = [(full > cutoff).sum((1, 2)) for cutoff in (thresholds.high, thresholds.low)]
        numbers += [torch.where(in_column, columns, width).amin(1), torch.where(in_row, rows, height).amin(1)]
        numbers += [torch.where(in_column, columns, -1).amax(1), torch.where(in_row, rows, -1).amax(1)]
        parts.append(torch.stack(numbers, 1))
    return torch.cat(parts)


@lru_cache
def _fused_works(device: str) -> bool:
    """Whether the kernel compiles on this device and counts the same pixels as upscaled masks; tried once, on noise."""
    noise = torch.randn(8, 64, 64, generator=torch.Generator().manual_seed(0)) * 3
    chain = ResizeChain((64, 64), (ResizeStage((256, 256), (200, 256)), ResizeStage((150, 192), (150, 192))))
    thresholds = Thresholds(mask=0.0, high=1.0, low=-1.0)
    try:
        fused, upscaled = (way(noise.to(device), chain, thresholds).cpu() for way in (_fused, _upscaled))
        reason = f"the kernel counts {fused.tolist()[0]} instead of {upscaled.tolist()[0]}"
        # A pixel within rounding of a cutoff may be counted differently.
        agrees = bool((fused - upscaled).abs().max() <= 2)
    except Exception as error:
        agrees, reason = False, f"{type(error).__name__}: {error}"
    if not agrees:
        text = f"masks are upscaled to full size on {device}, which is slower: {reason}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return agrees
