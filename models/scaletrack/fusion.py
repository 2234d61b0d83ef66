"""Temporal fusion: each box reads a few points of the maps of earlier frames (Eq. 7, "3D deformable fusion")."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trackmill.models.layers.deformable_attention import weighted_rows
from trackmill.models.scaletrack.variants import Variant


@dataclass(frozen=True, eq=False)
class History:
    """Maps of earlier frames, and which of them each box sees.

    Args:
        values: (R, H W, D): the maps of R frames, as `TemporalFusion.values` gives them.
        shape: H and W.
        rows: (N, window) int64 in 0..R-1: the frames that a box sees, the oldest first.
    """

    values: Tensor
    shape: tuple[int, int]
    rows: Tensor


class TemporalFusion(nn.Module):
    """Deformable attention in x, y and time.

    Time runs over the whole window: -1 is its oldest frame, 1 its newest. In x and y the points lie at most
    `temporal_reach` widths and heights of the box from its centre.

    Args:
        variant: gives widths, window and points.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        width = variant.channels
        self.heads, self.points, self.window = variant.heads, variant.temporal_points, variant.window
        self.reach = variant.temporal_reach
        self.offsets = nn.Linear(width, self.heads * self.points * 3)  # dt, dx, dy of each
        self.weights = nn.Linear(width, self.heads * self.points)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(variant.dropout)
        self.norm = nn.LayerNorm(width)
        self._reset()

    @torch.no_grad()
    def _reset(self) -> None:
        """Points spread over the window; each head looks in its own direction, within the box."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        times = (torch.arange(self.points) + 0.5) * 2 / self.points - 1  # (points,), inside of -1..1
        distances = (torch.arange(self.points) + 1.0) * 0.5 / self.points
        starts = torch.stack(
            [
                times.expand(self.heads, -1),
                angles.cos()[:, None] * distances,
                angles.sin()[:, None] * distances,
            ],
            dim=-1,
        )
        self.offsets.bias.copy_(starts.atanh().flatten())
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
        for zero in (self.offsets.weight, self.weights.weight, self.weights.bias, self.value.bias, self.output.bias):
            nn.init.zeros_(zero)

    def values(self, level: Tensor) -> Tensor:
        """What boxes of later frames read of a frame: its deepest level (F, H W, D), projected."""
        projected: Tensor = self.value(level)
        return projected

    def locations(self, content: Tensor, boxes: Tensor) -> Tensor:
        """Where each box reads: (N, heads, points, 3), t in -1..1, x and y in 0..1 of the padded frame.

        Args:
            content: (N, D).
            boxes: (N, 4) cx, cy, w, h in 0..1 of the padded frame.
        """
        offsets = self.offsets(content).to(boxes.dtype).tanh().unflatten(1, (self.heads, self.points, 3))
        centre, size = boxes[:, None, None, :2], boxes[:, None, None, 2:]
        return torch.cat([offsets[..., :1], centre + offsets[..., 1:] * size * self.reach], dim=-1)

    def forward(self, content: Tensor, boxes: Tensor, history: History) -> Tensor:
        """Add what is remembered to the content of boxes (N, D); arguments as in `locations`."""
        weights = self.weights(content).to(boxes.dtype).unflatten(1, (self.heads, self.points)).softmax(-1)
        remembered = sample_volume(history, self.locations(content, boxes), weights)
        fused: Tensor = self.norm(content + self.dropout(self.output(remembered.to(content.dtype))))
        return fused


def sample_volume(history: History, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of points between the cells of a window of maps: trilinear, with the border beyond the border.

    Args:
        history: the maps, and which of them each box sees.
        locations: (N, heads, points, 3): t in -1..1, from the oldest to the newest frame of the window; x and y in
            0..1, where 0 and 1 are the outer edges of a map.
        weights: (N, heads, points).

    Returns:
        (N, D) of the locations' dtype.
    """
    height, width = history.shape
    num_boxes, window = history.rows.shape
    heads = locations.shape[1]
    t, t_share = _between((locations[..., 0] + 1) * (0.5 * (window - 1)), window)
    x, x_share = _between(locations[..., 1] * width - 0.5, width)
    y, y_share = _between(locations[..., 2] * height - 0.5, height)
    head = torch.arange(heads, device=locations.device).view(1, -1, 1)
    indices, shares = [], []
    for later in (0, 1):
        slot = (t + later).clamp(max=window - 1)  # (N, heads, points)
        row = history.rows.gather(1, slot.flatten(1)).view_as(slot)
        share_t = weights * (t_share if later else 1 - t_share)
        for down in (0, 1):
            share_y = share_t * (y_share if down else 1 - y_share)
            line = (row * height + (y + down).clamp(max=height - 1)) * width
            for across in (0, 1):
                indices.append((line + (x + across).clamp(max=width - 1)) * heads + head)
                shares.append(share_y * (x_share if across else 1 - x_share))
    index = torch.stack(indices, -1).flatten(0, 1).flatten(1)  # (N heads, points 8)
    share = torch.stack(shares, -1).flatten(0, 1).flatten(1)
    cells = history.values.to(locations.dtype).reshape(-1, history.values.shape[2] // heads)
    return weighted_rows(cells, index, share).view(num_boxes, history.values.shape[2])


def _between(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The cell before a position, int64 in 0..size-1, and the share of the one behind it."""
    inside = position.clamp(0, size - 1)
    before = inside.detach().floor()
    return before.nan_to_num(0.0).long(), inside - before
