"""Trackers of a few thousand parameters, and clips for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from trackmill.models.backbones.multilevel import BACKBONES, MultiLevelBackbone
from trackmill.models.ipmot.clip_records import ClipTargets
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.sizes import DetectorSizes
from trackmill.models.ipmot.variants import Variant

LAYERS, QUERIES, WIDTH = 3, 12, 16

HEIGHT, WIDE = 32, 64


def small_variant(form: str = "dab", **changes: Any) -> Variant:
    """A variant of the parts that the large ones have; `changes` are of its fields."""
    sizes: dict[str, Any] = {
        "form": form,
        "backbone": "mini",
        "hidden": WIDTH,
        "heads": 2,
        "points": 2,
        "levels": 3,
        "encoder_layers": 1,
        "decoder_layers": LAYERS,
        "feedforward": 32,
        "queries": QUERIES,
    }
    return Variant(
        **{"name": "small", "embedding": 8, "detector": DetectorSizes(**sizes | changes.pop("sizes", {}))} | changes
    )


def small_tracker(form: str = "dab", seed: int = 0, **changes: Any) -> IpMot:
    """Fresh weights, in training mode."""
    torch.manual_seed(seed)
    with mock.patch.dict(BACKBONES, MINI):
        return IpMot(small_variant(form, **changes))


class _Steps(nn.Module):
    """Three convolutions, whose outputs are the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 8, stride=8)
        self.second, self.third = (nn.Conv2d(8, 8, 2, stride=2) for _ in range(2))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to maps of strides 8, 16 and 32."""
        first = self.first(images).relu()
        second = self.second(first).relu()
        return [first, second, self.third(second).relu()]


def _mini() -> MultiLevelBackbone:
    return MultiLevelBackbone("mini", _Steps(), channels=(8, 8, 8), strides=(8, 16, 32))


MINI = {"mini": _mini}
"""What to add to `BACKBONES`."""


def film(frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normalised noise (frames, 3, HEIGHT, WIDE), and no padding."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(frames, 3, HEIGHT, WIDE, generator=generator)
    return images, torch.zeros(frames, HEIGHT, WIDE, dtype=torch.bool)


def people(*ids: Sequence[int]) -> ClipTargets:
    """For each frame, who is in it. A person's box depends on the number alone."""
    boxes = [
        torch.tensor([[0.1 + 0.15 * (number % 6), 0.5, 0.12, 0.6] for number in each], dtype=torch.float32).view(-1, 4)
        for each in ids
    ]
    return ClipTargets(boxes=boxes, ids=[torch.tensor(list(each), dtype=torch.int64) for each in ids])
