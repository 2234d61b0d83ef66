"""The Swin of detectors (Liu et al., ICCV 2021), for Detic and for MASA's frozen detectors: one network, two spellings.

The forward pass differs from timm's in two points, each of which changes the results of official weights: maps are
padded to whole windows after the first norm and before they are shifted, unmasked; and maps smaller than a window are
shifted too. (Detic's `swintransformer.py`, from Swin-Transformer-Object-Detection; mmdet 3.3.0, `swin.py`.)

The two codes number pairs of cells alike. They differ in the names of the state dict, and in the order in which the 2 x
2 cells of C values are put side by side before they are merged: see `Spelling`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, cast

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse
from torch import Tensor, nn

WIDTH = 128
DEPTHS = (2, 2, 18, 2)
HEADS = (4, 8, 16, 32)
PATCH = 4

Spelling = Literal["mmdet", "original"]
"""Whose names the state dict has, and whose order the 4 C values of a merged patch have.

| | `mmdet` | `original` |
| --- | --- | --- |
| patches | `patch_embed.projection` | `patch_embed.proj` |
| stages | `stages.i.blocks.j` | `layers.i.blocks.j` |
| attention | `attn.w_msa` | `attn` |
| fully connected | `ffn.layers.0.0`, `ffn.layers.1` | `mlp.fc1`, `mlp.fc2` |
| merged value | `4 * channel + 2 * row + column` | `(2 * column + row) * C + channel` |

`merging_order` turns one order of values into the other.
"""

_MASKED = -100.0


class SwinDetector(nn.Module):
    """Wraps the backbone, so that it has its name in official checkpoints (`detector.backbone.`).

    Args:
        window: side of a window in cells, 7 (Detic) or 12 (Grounding DINO).
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.backbone = Swin(window)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """As `Swin.forward`."""
        maps: list[Tensor] = self.backbone(batch)
        return maps


class Swin(nn.Module):
    """Swin-B; returns the maps of its last three stages, each normalised by its own layer norm.

    The next stage takes the value before that norm. There is no dropout and no drop path: for inference, or frozen.

    Args:
        window: side of a window in cells.
        width, depths, heads: channels of the first stage; blocks and attention heads of each stage.
        spelling: of the state dict, see `Spelling`.
    """

    def __init__(
        self,
        window: int,
        *,
        width: int = WIDTH,
        depths: tuple[int, ...] = DEPTHS,
        heads: tuple[int, ...] = HEADS,
        spelling: Spelling = "mmdet",
    ) -> None:
        super().__init__()
        self._names = ("projection", "stages") if spelling == "mmdet" else ("proj", "layers")
        projection, stages = self._names
        self.patch_embed = nn.ModuleDict(
            {projection: nn.Conv2d(3, width, PATCH, stride=PATCH), "norm": nn.LayerNorm(width)}
        )
        widths = [width << stage for stage in range(len(depths))]
        last = len(depths) - 1
        made = nn.ModuleList(
            SwinStage(channels, depth, num_heads, window, merge=stage < last, spelling=spelling)
            for stage, (channels, depth, num_heads) in enumerate(zip(widths, depths, heads, strict=True))
        )
        self.add_module(stages, made)
        for stage in range(1, len(depths)):
            self.add_module(f"norm{stage}", nn.LayerNorm(widths[stage]))

    def forward(self, batch: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised to maps of 256, 512, 1024 channels at strides 8, 16, 32 (sizes rounded up)."""
        height, width = batch.shape[-2:]
        batch = F.pad(batch, (0, -width % PATCH, 0, -height % PATCH))
        projection, stages = self._names
        tokens = self.patch_embed["norm"](self.patch_embed[projection](batch).permute(0, 2, 3, 1))  # (B, H, W, C)
        maps = []
        for index, stage in enumerate(cast(Iterable[SwinStage], getattr(self, stages))):
            for block in stage.blocks:
                tokens = block(tokens)
            if index > 0:
                maps.append(self.get_submodule(f"norm{index}")(tokens).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)
        return maps


class SwinStage(nn.Module):
    """The blocks of one resolution and the patch merging after them (in timm of today: of the next stage)."""

    def __init__(
        self, channels: int, depth: int, heads: int, window: int, *, merge: bool, spelling: Spelling = "mmdet"
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(channels, heads, window, shift=window // 2 if index % 2 else 0, spelling=spelling)
            for index in range(depth)
        )
        self.downsample = PatchMerging(channels, spelling) if merge else None


class SwinBlock(nn.Module):
    """Attention within windows, shifted in every second block, then two fully connected layers; both residual."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, spelling: Spelling = "mmdet") -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.spelling = spelling
        attention = WindowAttention(channels, heads, window_size=window)
        # Official checkpoints hold this buffer, timm's state dict does not. Both number the pairs in the same way.
        pairs = cast(Tensor, attention.relative_position_index)
        attention.register_buffer("relative_position_index", pairs, persistent=True)
        layers = Mlp(channels, 4 * channels)
        self.norm1 = nn.LayerNorm(channels)
        self.attn: nn.Module = nn.ModuleDict({"w_msa": attention}) if spelling == "mmdet" else attention
        self.norm2 = nn.LayerNorm(channels)
        if spelling == "mmdet":
            self.ffn = nn.ModuleDict({"layers": nn.Sequential(nn.Sequential(layers.fc1, layers.act), layers.fc2)})
        else:
            self.mlp = layers

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        tokens = tokens + self._attend(self.norm1(tokens))
        fed: Tensor = (self.ffn["layers"] if self.spelling == "mmdet" else self.mlp)(self.norm2(tokens))
        return tokens + fed

    def _attend(self, tokens: Tensor) -> Tensor:
        height, width, channels = tokens.shape[1:]
        window = (self.window, self.window)
        # Padded cells take part as keys and values; the released code does not mask them.
        tokens = F.pad(tokens, (0, 0, 0, -width % self.window, 0, -height % self.window))
        rows, columns = tokens.shape[1:3]
        mask = None
        if self.shift:
            tokens = tokens.roll((-self.shift, -self.shift), dims=(1, 2))
            # torch.compile would ignore the cache, and say so in each process.
            make = shift_mask.__wrapped__ if torch.compiler.is_compiling() else shift_mask
            mask = make(rows, columns, self.window, self.shift, tokens.device).to(tokens.dtype)
        windows = window_partition(tokens, window).flatten(1, 2)  # (B * windows, window * window, C)
        attention = cast(nn.ModuleDict, self.attn)["w_msa"] if self.spelling == "mmdet" else self.attn
        attended = attention(windows, mask=mask)
        tokens = window_reverse(attended.view(-1, *window, channels), window, rows, columns)
        if self.shift:
            tokens = tokens.roll((self.shift, self.shift), dims=(1, 2))
        return tokens[:, :height, :width]


class PatchMerging(nn.Module):
    """Merges 2 x 2 cells into one with twice the channels; odd sides are padded by a row or column of zeros."""

    def __init__(self, channels: int, spelling: Spelling = "mmdet") -> None:
        super().__init__()
        self.spelling = spelling
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H / 2, W / 2, 2 C), sizes rounded up."""
        height, width = tokens.shape[1:3]
        tokens = F.pad(tokens, (0, 0, 0, width % 2, 0, height % 2))
        patches = tokens.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H/2, row, W/2, column, C)
        # -> (B, H/2, W/2, C, row, column), or (B, H/2, W/2, column, row, C)
        patches = patches.permute(*((0, 1, 3, 5, 2, 4) if self.spelling == "mmdet" else (0, 1, 3, 4, 2, 5)))
        merged: Tensor = self.reduction(self.norm(patches.flatten(3)))
        return merged


def merging_order(values: Tensor, to: Spelling) -> Tensor:
    """Weights of a patch merging, written for one order of the 4 C merged values, for the other one.

    Args:
        values: (..., 4 C), such as `downsample.reduction.weight`, `downsample.norm.weight` and `downsample.norm.bias`.
        to: the order of the result; `values` have the other one.
    """
    if to == "original":
        cells = torch.unflatten(values, -1, (-1, 2, 2))  # (..., C, row, column)
        return cells.movedim(-3, -1).transpose(-3, -2).flatten(-3)
    cells = torch.unflatten(values, -1, (2, 2, -1))  # (..., column, row, C)
    return cells.transpose(-3, -2).movedim(-1, -3).flatten(-3)


@lru_cache(maxsize=16)
def shift_mask(rows: int, columns: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Attention mask that separates cells which share a window only because of the cyclic shift.

    Args:
        rows, columns: size of the padded map, multiples of `window`.
        window, shift: in cells, `0 < shift < window`.
        device: device of the mask.

    Returns:
        (windows, window * window, window * window) float32: 0, or -100 between cells that are not neighbours. The
        result is cached and shared between calls; do not write to it.
    """

    def parts(length: int) -> Tensor:
        # The last `shift` cells were shifted in from the other side; the cells before them fill the last window.
        places = torch.arange(length, device=device)
        return (places >= length - window).long() + (places >= length - shift).long()

    region = parts(rows)[:, None] * 3 + parts(columns)  # (rows, columns)
    region = window_partition(region[None, :, :, None], (window, window)).flatten(1)  # (windows, window * window)
    apart = region[:, :, None] != region[:, None, :]
    return apart.float() * _MASKED
