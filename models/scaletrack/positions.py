"""Where the cells of a map lie in the picture, for sine embeddings (`trackmill.models.layers.sine`)."""

from __future__ import annotations

import torch
from torch import Tensor


def cell_positions(shape: tuple[int, int], cells: Tensor | None, like: Tensor) -> Tensor:
    """Centres of the cells of a map in 0..1 of the picture: (1 or F, H W, 2) float32, y and x.

    Args:
        shape: H and W of the map.
        cells: (F, 2) rows and columns that hold a part of the picture (`Area.cells`); None: all.
        like: gives the device.
    """
    height, width = shape
    y = torch.arange(height, device=like.device, dtype=torch.float32) + 0.5
    x = torch.arange(width, device=like.device, dtype=torch.float32) + 0.5
    if cells is None:
        rows, columns = y[None] / height, x[None] / width
    else:
        rows, columns = y / cells[:, :1], x / cells[:, 1:]
    grid = torch.stack(torch.broadcast_tensors(rows[:, :, None], columns[:, None]), dim=-1)
    return grid.flatten(1, 2)
