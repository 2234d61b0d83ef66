"""A small network with everything engines must cope with: frozen, unused and normalised parts, and a generator."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackmill.pipeline.tasks.base import TrainingModule

SIDE = 6


class Block(nn.Module):
    """Convolution, norm, ReLU; repeated."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = norm

    def forward(self, values: Tensor) -> Tensor:
        """(B, 8, H, W) to the same shape."""
        return values + torch.relu(self.norm(self.conv(values)))


class Network(nn.Module):
    """A frozen convolution, repeated blocks, a linear head, and a head that only some batches use."""

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)).requires_grad_(False)
        self.blocks = nn.Sequential(*(Block(nn.BatchNorm2d(8) if batch_norm else nn.GroupNorm(2, 8)) for _ in range(2)))
        self.head = nn.Linear(8, 2)
        self.seldom = nn.Linear(8, 1)
        self.train()

    def train(self, mode: bool = True) -> Network:
        """The frozen part stays in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 8)."""
        values: Tensor = self.blocks(self.frozen(images)).mean(dim=(2, 3))
        return values


class TinyModule(TrainingModule):
    """Regression of `targets`; where `seldom` is above 0 another head is trained as well.

    Args:
        batch_norm: blocks with batch norm, otherwise group norm.
        noise: deviation of what the generator adds to the features.
    """

    def __init__(self, batch_norm: bool = True, noise: float = 0.0) -> None:
        super().__init__()
        self.network = Network(batch_norm)
        self.noise = noise

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """See `TrainingModule.forward`."""
        images, targets = batch["images"], batch["targets"]
        features = self.network(images)
        if self.noise:
            features = features + self.noise * torch.randn(features.shape, generator=generator).to(features)
        losses = {"fit": F.mse_loss(self.network.head(features).float(), targets)}
        if float(batch["seldom"]) > 0:
            losses["seldom"] = batch["seldom"] * self.network.seldom(features).float().square().mean()
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses | {"positives": torch.tensor(float(len(images)))}


def tiny_module(batch_norm: bool = True, noise: float = 0.0, seed: int = 0) -> TinyModule:
    """The module with the weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyModule(batch_norm, noise)


def tiny_batch(index: int, size: int = 8, seldom: float = 1.0) -> dict[str, Any]:
    """One batch of a learnable task; the same for the same index."""
    generator = torch.Generator().manual_seed(1000 + index)
    images = torch.randn(size, 3, SIDE, SIDE, generator=generator)
    targets = torch.stack([images.mean(dim=(1, 2, 3)) * 4, images[:, 0].mean(dim=(1, 2)) * 2], dim=1)
    return {"images": images, "targets": targets, "seldom": torch.tensor(seldom)}


def part(batch: dict[str, Any], number: int, parts: int) -> dict[str, Any]:
    """One of equal parts of a batch."""
    size = len(batch["images"]) // parts
    rows = slice(number * size, (number + 1) * size)
    return {"images": batch["images"][rows], "targets": batch["targets"][rows], "seldom": batch["seldom"]}
