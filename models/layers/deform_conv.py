"""Modulated deformable convolution with group norm, and how the released code reads offsets for coarser maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from trackmill.schemas.errors import JobError

TAPS = 9
"""Taps of a 3 x 3 kernel in row-major order; each has an offset (dy, dx) in cells and a weight in 0..1."""

_NORM_GROUPS = 16
_CELLS_AT_ONCE = 8192


class DeformConvNorm(nn.Module):
    """3 x 3 deformable convolution (DCNv2, one group, no bias), then group norm with 16 groups; no activation.

    Args:
        channels: C, in and out.
        stride: 1, or 2 to bring a finer map to the next level.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = DeformConv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(_NORM_GROUPS, channels)

    def forward(self, values: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        """Convolve.

        Args:
            values: (B, C, H, W).
            offsets: (B, 18, H', W'), where H', W' is the size of the result: (dy, dx) of each tap.
            weights: (B, 9, H', W') in 0..1.

        Returns:
            (B, C, H', W').

        Raises:
            JobError: offsets are nan, without gradients. With gradients the result is nan, so that whoever trains
                notices; torchvision's CPU operator would read beyond its memory and end the process.
        """
        if values.device.type == "cpu" and not torch.compiler.is_compiling():
            offsets, alarm = _readable(offsets)
            if alarm is not None:
                values = values + alarm
        kind = values.device.type
        if torch.is_autocast_enabled(kind):
            # torchvision also computes in float32 on GPUs; its CPU operator has no half precision.
            with torch.autocast(kind, enabled=False):
                precise: Tensor = self(values.float(), offsets.float(), weights.float())
                return precise
        if kind == "cpu" and not torch.is_grad_enabled():
            convolved = gathered_convolution(values, offsets, weights, self.conv.weight, self.conv.stride[0])
        else:
            convolved = self.conv(values, offsets, weights)
        normed: Tensor = self.norm(convolved)
        return normed


def _readable(offsets: Tensor) -> tuple[Tensor, Tensor | None]:
    """Offsets that point somewhere, and what makes all values nan where they did not."""
    total = offsets.detach().sum()
    if bool(total.isfinite()) or bool(offsets.detach().isfinite().all()):
        return offsets, None
    if not torch.is_grad_enabled():
        raise JobError(
            "the network gives nan or infinity where deformable convolution reads its offsets: its weights or the "
            "picture hold such values, or they overflow in this precision; try float32, and other weights"
        )
    alarm = (offsets * math.nan).sum()
    return torch.zeros_like(offsets), alarm


def gathered_convolution(values: Tensor, offsets: Tensor, weights: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """The same convolution in less than half of torchvision's time on a CPU, without gradients for offsets and weights.

    torchvision interpolates four neighbours channel by channel. Here each neighbour is a row of C numbers, and
    `embedding_bag` computes weighted sums of rows. The order of summation differs, so results differ by rounding.

    Args:
        values: (B, C, H, W).
        offsets, weights: as in `DeformConvNorm.forward`.
        kernel: (O, C, 3, 3).
        stride: 1 or 2.

    Returns:
        (B, O, H', W').
    """
    size = offsets.shape[-2:]
    indices, shares = _neighbours(values.shape[-2:], offsets, weights, stride)  # (B, H' W', 9, 4)
    flat_kernel = kernel.permute(2, 3, 1, 0).flatten(0, 2)  # (9 C, O)
    results = []
    for image, index, share in zip(values, indices, shares, strict=True):
        rows = image.flatten(1).t().contiguous()  # (H W, C)
        parts = []
        for some, mixed in zip(index.split(_CELLS_AT_ONCE), share.split(_CELLS_AT_ONCE), strict=True):
            sampled = F.embedding_bag(some.flatten(0, 1), rows, per_sample_weights=mixed.flatten(0, 1), mode="sum")
            parts.append(sampled.view(len(some), -1) @ flat_kernel)
        results.append(torch.cat(parts).t().reshape(-1, *size))
    return torch.stack(results)


def _neighbours(size: torch.Size, offsets: Tensor, weights: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The four cells around each sampling position, as rows of the flattened map, and their weights.

    Cells beyond the border have weight 0. Both results are (B, H' W', 9, 4).
    """
    height, width = size
    rows, columns = offsets.shape[-2:]
    taps = torch.arange(TAPS)
    down = (torch.arange(rows) * stride - 1).view(-1, 1) + (taps // 3).view(-1, 1, 1)  # (9, H', 1)
    right = (torch.arange(columns) * stride - 1).view(1, -1) + (taps % 3).view(-1, 1, 1)  # (9, 1, W')
    y = down + offsets[:, 0::2]
    x = right + offsets[:, 1::2]
    top, left = y.floor(), x.floor()
    indices, shares = [], []
    for beside_y, share_y in ((top, top + 1 - y), (top + 1, y - top)):
        inside_y = (beside_y >= 0) & (beside_y < height)
        for beside_x, share_x in ((left, left + 1 - x), (left + 1, x - left)):
            inside = inside_y & (beside_x >= 0) & (beside_x < width)
            indices.append(torch.where(inside, beside_y.int() * width + beside_x.int(), 0))
            shares.append(torch.where(inside, share_y * share_x * weights, 0))
    # (4, B, 9, H', W') -> (B, H' W', 9, 4)
    cells, parts = (torch.stack(each).permute(1, 3, 4, 2, 0).flatten(1, 2).contiguous() for each in (indices, shares))
    return cells, parts


def reread(values: Tensor, height: int, width: int) -> Tensor:
    """Read a map as if it had fewer rows and columns. This is a bug that the official weights were trained with.

    The released fusion convolves the coarser map (h x w) with offsets predicted on the finer one (H x W). Its operator
    (mmcv's modulated deformable convolution) does not compare sizes: it reads the memory of each image as if its shape
    were K x h x w. So it uses the first K * h * w numbers of the image's contiguous K x H x W, although they belong to
    other channels and cells.

    Args:
        values: (B, K, H, W).
        height, width: h and w, with h * w <= H * W.

    Returns:
        (B, K, h, w).
    """
    channels = values.shape[1]
    return values.flatten(1)[:, : channels * height * width].reshape(-1, channels, height, width)
