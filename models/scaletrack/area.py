"""Where the picture lies in the padded frames of a batch, and what that means for maps and boxes.

A picture lies in the upper left of its frame; the rest is padding, which must not change any result: its cells are
masked where attention reads, do not count in norms, and hold copies of the picture's border where boxes are pooled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Area:
    """Sizes of F frames, all padded to the same one.

    Args:
        height, width: of the padded frames, in pixels.
        sizes: (F, 2) int64 height and width of the pictures in them; None: no padding anywhere.
    """

    height: int
    width: int
    sizes: Tensor | None = None

    def cells(self, stride: int) -> Tensor | None:
        """(F, 2) int64: rows and columns of a map of this stride that hold a part of the picture."""
        return None if self.sizes is None else (self.sizes + (stride - 1)) // stride

    def padding(self, shape: tuple[int, int], stride: int) -> Tensor | None:
        """(F, H_l W_l) bool: True where a cell of a map (H_l, W_l) holds padding only."""
        cells = self.cells(stride)
        if cells is None:
            return None
        below = torch.arange(shape[0], device=cells.device) >= cells[:, :1]  # (F, H_l)
        beside = torch.arange(shape[1], device=cells.device) >= cells[:, 1:]
        return (below[:, :, None] | beside[:, None]).flatten(1)

    def extended(self, tokens: Tensor, shape: tuple[int, int], stride: int) -> Tensor:
        """Cells (F, H_l W_l, C) of a map, with the border of the picture copied into the padding."""
        cells = self.cells(stride)
        if cells is None:
            return tokens
        frames, number = tokens.shape[:2]
        row = torch.minimum(torch.arange(shape[0], device=cells.device), cells[:, :1] - 1)  # (F, H_l)
        column = torch.minimum(torch.arange(shape[1], device=cells.device), cells[:, 1:] - 1)
        index = (row[:, :, None] * shape[1] + column[:, None]).flatten(1)
        index = index + torch.arange(frames, device=cells.device)[:, None] * number
        return tokens.flatten(0, 1).index_select(0, index.flatten()).view_as(tokens)

    def corner(self, frame_of_box: Tensor, dtype: torch.dtype) -> Tensor:
        """(N, 4) or (4,): width, height, width, height of each box's picture."""
        if self.sizes is None:
            ends = [torch.full((), end, dtype=dtype, device=frame_of_box.device) for end in (self.width, self.height)]
            return torch.stack(ends).repeat(2)
        return self.sizes.flip(1).to(dtype)[frame_of_box].repeat(1, 2)

    def clip(self, boxes: Tensor, frame_of_box: Tensor) -> Tensor:
        """Boxes (N, 4), cut at the border of their picture; what lies outside becomes an empty box on the border."""
        return torch.minimum(boxes.clamp(min=0), self.corner(frame_of_box, boxes.dtype))

    def whole(self, like: Tensor) -> Tensor:
        """(4,): width, height, width, height of the padded frames."""
        return torch.cat([like.new_full((1,), end) for end in (self.width, self.height)]).repeat(2)
