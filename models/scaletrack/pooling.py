"""What a box holds: cells of the deepest level, pooled by attention and at points that the content chooses.

Paper, section 3.4.2, Eqs. 4 to 6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from trackmill.models.scaletrack.variants import Variant

_HIDDEN = 64
"""Width of the convolution of the adaptive sampling."""


def pooled_regions(maps: Tensor, boxes: Tensor, frame_of_box: Tensor, stride: float, variant: Variant) -> Tensor:
    """RoIAlign (Eq. 4).

    Args:
        maps: (F, D, H, W).
        boxes: (N, 4) xyxy in pixels of the padded frames.
        frame_of_box: (N,) int64.
        stride: pixels per cell.
        variant: cells of a region and samples of a cell.

    Returns:
        (N, D, size, size) of the maps' dtype.
    """
    precise = torch.promote_types(maps.dtype, torch.float32)  # positions, in pixels of large frames
    regions = torch.cat([frame_of_box[:, None].to(precise), boxes.to(precise)], dim=1)
    size = (variant.roi_size, variant.roi_size)
    cells: Tensor = roi_align(maps.to(precise), regions, size, 1 / stride, variant.roi_samples, aligned=True)
    return cells.to(maps.dtype)


class AttentionPooling(nn.Module):
    """A weighted mean of a region's cells, with weights from the cells themselves (Eq. 5).

    Args:
        channels: D.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scores = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 1))

    def forward(self, regions: Tensor) -> Tensor:
        """(N, D, H, W) to (N, D)."""
        cells = regions.flatten(2).transpose(1, 2)  # (N, H W, D)
        weights = self.scores(cells).softmax(dim=1)
        pooled: Tensor = (cells * weights).sum(dim=1)
        return pooled


class AdaptiveSampling(nn.Module):
    """The mean of K points of a region, which its content chooses (section 3.4.2).

    Args:
        channels: D.
        points: K.
        spread: in the beginning the points lie at (+-spread, +-spread). If all began in the middle, all would get the
            same gradient.
    """

    def __init__(self, channels: int, points: int, spread: float) -> None:
        super().__init__()
        self.points = points
        self.convolution = nn.Conv2d(channels, _HIDDEN, 3, padding=1)
        self.offsets = nn.Linear(_HIDDEN, 2 * points)
        corners = torch.tensor([(-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)])
        # The fifth to eighth lie nearer to the middle, and so on.
        starts = torch.stack([corners[k % 4] * spread / (1 + k // 4) for k in range(points)])
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():
            self.offsets.bias.copy_(starts.atanh().flatten())

    def locations(self, regions: Tensor) -> Tensor:
        """The points of each region: (N, K, 2), x and y, where -1 and 1 are the edges of the box."""
        hidden = torch.relu(self.convolution(regions)).mean((2, 3))
        offsets: Tensor = self.offsets(hidden)
        bounded = offsets.to(torch.promote_types(offsets.dtype, torch.float32)).tanh()
        return bounded.view(-1, self.points, 2)

    def forward(self, regions: Tensor) -> Tensor:
        """(N, D, H, W) to (N, D)."""
        points = self.locations(regions)
        if not len(points):
            return regions.mean((2, 3)) + points.sum().to(regions.dtype)  # grid_sample refuses an empty batch
        grid = points[:, None]  # (N, 1, K, 2)
        values: Tensor = F.grid_sample(regions.to(points.dtype), grid, padding_mode="border", align_corners=False)
        return values.mean((2, 3)).to(regions.dtype)


class SpatialPooling(nn.Module):
    """Both poolings, fused by a linear layer (Eq. 6).

    Args:
        variant: gives widths and points.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.attention = AttentionPooling(variant.channels)
        self.sampling = AdaptiveSampling(variant.channels, variant.adaptive_points, variant.adaptive_spread)
        self.fuse = nn.Linear(2 * variant.channels, variant.channels)

    def forward(self, regions: Tensor) -> Tensor:
        """(N, D, H, W) to (N, D)."""
        fused: Tensor = self.fuse(torch.cat([self.attention(regions), self.sampling(regions)], dim=1))
        return fused
