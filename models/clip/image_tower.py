"""The image tower, a vision transformer: pictures to one vector each, in the space that CLIP's texts have too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trackmill.models.clip.transformer import HEAD_WIDTH, Transformer

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of R, G, B in 0..1, over the pictures that OpenAI trained with."""

Resizing = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class ImageTowerSizes:
    """Sizes of an image tower; the defaults are those of ViT-B/16.

    Args:
        patch: side of the squares that a picture is cut into, in pixels.
        grid: squares on each side of the pictures that it was trained with; 14 is 224 pixels.
        width: D, of a token.
        layers: residual blocks.
        embedding: E, length of the vector of a picture.
    """

    patch: int = 16
    grid: int = 14
    width: int = 768
    layers: int = 12
    embedding: int = 512

    @property
    def heads(self) -> int:
        """Of each attention."""
        return max(self.width // HEAD_WIDTH, 1)


class ImageTower(nn.Module):
    """Patches and a class token, positions, norm, transformer, norm, and a projection of the class token.

    Pictures may have any size of whole patches: the table of positions is resized to their grid, and the position of
    the class token is kept. Names of tensors are OpenAI's. Fresh weights are for tests; nobody trains this here.

    Args:
        sizes: of its tensors.
        resizing: how positions are resized, without antialiasing and without aligned corners.
    """

    def __init__(self, sizes: ImageTowerSizes, resizing: Resizing = "bilinear") -> None:
        super().__init__()
        self.sizes, self.resizing = sizes, resizing
        scale = sizes.width**-0.5
        self.conv1 = nn.Conv2d(3, sizes.width, kernel_size=sizes.patch, stride=sizes.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(sizes.width) * scale)
        self.positional_embedding = nn.Parameter(torch.randn(1 + sizes.grid**2, sizes.width) * scale)
        self.ln_pre = nn.LayerNorm(sizes.width)
        self.transformer = Transformer(sizes.width, sizes.layers, sizes.heads)
        self.ln_post = nn.LayerNorm(sizes.width)
        self.proj = nn.Parameter(torch.randn(sizes.width, sizes.embedding) * scale)

    def forward(self, images: Tensor) -> Tensor:
        """Vectors of pictures, not normalised.

        Args:
            images: (N, 3, H, W) R, G, B in 0..1, minus `MEAN`, over `STD`; H and W are multiples of the patch.

        Returns:
            (N, E).

        Raises:
            ValueError: H or W is no multiple of the patch.
        """
        hidden = self.transformer(self.tokens(images))
        out: Tensor = self.ln_post(hidden[:, 0]) @ self.proj
        return out

    def tokens(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1 + h w, D): what enters the first block, the class token first."""
        patch = self.sizes.patch
        if images.shape[-2] % patch or images.shape[-1] % patch or 0 in images.shape[-2:]:
            raise ValueError(f"pictures of {tuple(images.shape[-2:])} pixels are not made of patches of {patch}")
        maps = self.conv1(images)  # (N, D, h, w)
        first = self.class_embedding.to(maps.dtype).expand(len(maps), 1, -1)
        values = torch.cat([first, maps.flatten(2).transpose(1, 2)], dim=1)
        out: Tensor = self.ln_pre(values + self.positions(maps.shape[-2], maps.shape[-1]))
        return out

    def positions(self, height: int, width: int) -> Tensor:
        """(1 + height width, D): the table for a grid of `height` by `width` patches."""
        grid = self.sizes.grid
        if (height, width) == (grid, grid):
            return self.positional_embedding
        table = self.positional_embedding[1:].t().reshape(1, -1, grid, grid)
        resized = F.interpolate(table, (height, width), mode=self.resizing, align_corners=False)
        return torch.cat([self.positional_embedding[:1], resized[0].flatten(1).t()])
