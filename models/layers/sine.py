"""Sine embeddings of numbers in 0..1, as in the DETR family."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine(positions: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines of numbers: (..., K) in 0..1 to (..., K * width) float32; `width` is even."""
    exponents = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angles = positions.float()[..., None] * (2 * math.pi) / temperature**exponents  # (..., K, width / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)
