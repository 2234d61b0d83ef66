"""A ScaleTrack of a few thousand parameters, whose weights are all drawn, and clips for it.

Its backbone sees one patch at a time. So a change of a result under padding, for example, is never the backbone's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trackmill.models.backbones.multilevel import MultiLevelBackbone
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.variants import Variant

STRIDE = 8
SIDE = 56

SMALL = Variant(
    name="small",
    backbone="patches",
    side=SIDE,
    channels=32,
    heads=4,
    points=2,
    feedforward=48,
    norm_groups=8,
    window=3,
    temporal_points=2,
    adaptive_points=4,
    dimensions=24,
)
"""Three levels: two of stride 8, one of stride 16."""


class Patches(nn.Module):
    """Maps of normalised images, patch by patch."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 12, STRIDE, STRIDE)
        self.middle = nn.Conv2d(12, 12, 1)
        self.coarse = nn.Conv2d(12, 20, 2, 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = torch.tanh(self.fine(images))
        middle = torch.tanh(self.middle(fine))
        return [fine, torch.tanh(self.coarse(middle)), middle]


def patches() -> MultiLevelBackbone:
    return MultiLevelBackbone(
        "patches", Patches(), channels=(12, 20, 12), strides=(STRIDE, 2 * STRIDE, STRIDE), divisor=2 * STRIDE
    )


def small_model(seed: int = 0, **changes: Any) -> ScaleTrack:
    """In evaluation mode. All weights are moved, so that nothing is zero or alike because it starts so."""
    torch.manual_seed(seed)
    changes.setdefault("side", 64)
    model = ScaleTrack(replace(SMALL, **changes), patches())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def clip(num_frames: int = 5, height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    """(T, 3, H, W) in 0..1."""
    return torch.rand(num_frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


def some_boxes(counts: list[int], height: int = 48, width: int = 64, seed: int = 0) -> list[Tensor]:
    """Boxes within a picture, a tensor for each frame."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.tensor([width, height], dtype=torch.float32)
    result = []
    for count in counts:
        corners = torch.rand(count, 2, 2, generator=generator) * ends
        result.append(torch.cat([corners.amin(1), corners.amax(1)], dim=1))
    return result


def flat(boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """All boxes, and the number of each one's frame."""
    counts = torch.tensor([len(each) for each in boxes])
    return torch.cat(boxes), torch.arange(len(boxes)).repeat_interleave(counts)


def close(found: Tensor, expected: Tensor, atol: float = 2e-6) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def differs(found: Tensor, other: Tensor, by: float = 1e-3) -> bool:
    """Whether every row of two tensors (N, D) differs clearly."""
    return bool(((found - other).abs().amax(1) > by).all())
