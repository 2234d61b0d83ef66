"""DINOv2's vision transformers (Oquab et al., TMLR 2024; registers: Darcet et al., ICLR 2024), with the official names.

Blocks and patch embedding are timm's, which have the official names of tensors and the official arithmetic. What timm
does otherwise is done here: the position table is resized as the published code resizes it (dinov2 at commit b8931f7,
`vision_transformer.py`). Models without registers: bicubic, no antialiasing, and a scale factor of (n + 0.1) / 37 for n
patches. Models with registers: bicubic with antialiasing, to exactly n patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

PATCH = 14
"""Pixels along each side of a patch."""

GRID = 37
"""Patches along each side of the picture that the position table is for: 518 pixels."""

NUM_REGISTERS = 4
"""Of the models that have registers (`_reg4`)."""

OFFSET = 0.1
"""What the published code adds to the number of patches before it resizes the table of a model without registers."""

EPSILON = 1e-6
"""Of the layer norms."""

_NORM = cast(type[nn.Module], partial(nn.LayerNorm, eps=EPSILON))

SIZES: dict[str, tuple[int, int, int]] = {"vits14": (384, 12, 6), "vitb14": (768, 12, 12), "vitl14": (1024, 24, 16)}
"""Width, number of blocks and attention heads of each size. ViT-g, which has other feed-forward layers, is left out."""


class DinoV2(nn.Module):
    """Patch tokens after four blocks, each through the final norm, as maps.

    The four are the ends of the four quarters of the network: blocks 2, 5, 8, 11 of twelve and 5, 11, 17, 23 of 24,
    zero-based. (DINOv2's own dense heads read the same four of ViT-S; of ViT-L they read 4 instead of 5.)

    Args:
        width, depth, heads: of the transformer.
        registers: number of register tokens, 0 or `NUM_REGISTERS`; they also decide how positions are resized.
        grid: patches along each side of the position table.
    """

    def __init__(self, width: int, depth: int, heads: int, *, registers: int = 0, grid: int = GRID) -> None:
        super().__init__()
        self.width, self.grid = width, grid
        self.blocks_read = tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        # What stands for a hidden patch in training; official files hold it, and nothing here reads it.
        self.register_buffer("mask_token", torch.zeros(1, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        self.patch_embed = PatchEmbed(None, PATCH, 3, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, qkv_bias=True, init_values=1.0, norm_layer=_NORM) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised, sides multiples of 14, to four maps (B, C, H / 14, W / 14)."""
        rows, columns = batch.shape[-2] // PATCH, batch.shape[-1] // PATCH
        return [
            self.norm(tokens[:, -rows * columns :]).transpose(1, 2).unflatten(2, (rows, columns))
            for tokens in self.block_tokens(batch)
        ]

    def block_tokens(self, batch: Tensor) -> list[Tensor]:
        """All tokens (B, 1 + registers + patches, C) after each of `blocks_read`, before the final norm."""
        tokens, read = self.tokens_in(batch), []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.blocks_read:
                read.append(tokens)
        return read

    def tokens_in(self, batch: Tensor) -> Tensor:
        """The first block's input (B, 1 + registers + patches, C): class token, registers, patches row by row."""
        rows, columns = batch.shape[-2] // PATCH, batch.shape[-1] // PATCH
        patches = self.patch_embed(batch)  # (B, patches, C)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = tokens + self.positions(rows, columns)
        if self.register_tokens is None:
            return tokens
        # Registers have no position, so they come in afterwards.
        registers = self.register_tokens.expand(len(patches), -1, -1)
        return torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The position table for that many patches: (1, 1 + rows * columns, C), the class token's first."""
        if rows == columns == self.grid:
            return self.pos_embed
        table = self.pos_embed.float()
        patches = table[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))  # (1, C, grid, grid)
        if self.register_tokens is None:
            scale = ((rows + OFFSET) / self.grid, (columns + OFFSET) / self.grid)
            resized = F.interpolate(patches, scale_factor=scale, mode="bicubic")
        else:
            resized = F.interpolate(patches, size=(rows, columns), mode="bicubic", antialias=True)
        return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1).to(self.pos_embed.dtype)


def dinov2(size: str, *, registers: bool = False) -> DinoV2:
    """`vits14`, `vitb14` or `vitl14` with fresh weights."""
    width, depth, heads = SIZES[size]
    return DinoV2(width, depth, heads, registers=NUM_REGISTERS if registers else 0)


def official_dinov2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of an official file, or of timm's, by the names of `DinoV2`.

    timm leaves `mask_token` out. With registers it calls those `reg_token`, and has added the class token's position to
    that token: here this position is then zero.
    """
    given = dict(tensors)
    if "reg_token" in given:
        given["register_tokens"] = given.pop("reg_token")
        table = given.get("pos_embed")
        if table is not None and table.ndim == 3 and table.shape[1] == GRID * GRID:
            given["pos_embed"] = F.pad(table, (0, 0, 1, 0))
    return given
