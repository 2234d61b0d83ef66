"""Detic's Swin as loops over windows, from the description alone and with the official names of its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def naive_swin(
    weights: Mapping[str, Tensor], batch: Tensor, *, depths: tuple[int, ...], heads: tuple[int, ...], window: int
) -> list[Tensor]:
    """Maps (B, C, H, W) of the last three stages, of a batch (B, 3, H, W)."""
    per_image = [_one(weights, image, depths, heads, window) for image in batch]
    return [torch.stack(maps) for maps in zip(*per_image, strict=True)]


def _norm(weights: Mapping[str, Tensor], name: str, values: Tensor) -> Tensor:
    return F.layer_norm(values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)


def _linear(weights: Mapping[str, Tensor], name: str, values: Tensor) -> Tensor:
    return F.linear(values, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _one(
    weights: Mapping[str, Tensor], image: Tensor, depths: tuple[int, ...], heads: tuple[int, ...], window: int
) -> list[Tensor]:
    rows, columns = image.shape[1:]
    image = F.pad(image, (0, -columns % 4, 0, -rows % 4))
    patches = F.conv2d(image[None], weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4)[0]
    tokens = _norm(weights, "patch_embed.norm", patches.permute(1, 2, 0))  # (H, W, C)
    maps = []
    for stage, depth in enumerate(depths):
        for block in range(depth):
            name, shift = f"layers.{stage}.blocks.{block}", (window // 2) * (block % 2)
            tokens = tokens + _attention(weights, name, tokens, heads[stage], window, shift)
            hidden = F.gelu(_linear(weights, f"{name}.mlp.fc1", _norm(weights, f"{name}.norm2", tokens)))
            tokens = tokens + _linear(weights, f"{name}.mlp.fc2", hidden)
        if stage:
            maps.append(_norm(weights, f"norm{stage}", tokens).permute(2, 0, 1))
        if stage < len(depths) - 1:
            tokens = F.pad(tokens, (0, 0, 0, tokens.shape[1] % 2, 0, tokens.shape[0] % 2))
            cells = [tokens[row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
            merged = _norm(weights, f"layers.{stage}.downsample.norm", torch.cat(cells, dim=-1))
            tokens = _linear(weights, f"layers.{stage}.downsample.reduction", merged)
    return maps


def _attention(weights: Mapping[str, Tensor], name: str, tokens: Tensor, heads: int, window: int, shift: int) -> Tensor:
    height, width, channels = tokens.shape
    normed = F.pad(_norm(weights, f"{name}.norm1", tokens), (0, 0, 0, -width % window, 0, -height % window))
    rows, columns = normed.shape[:2]
    table = weights[f"{name}.attn.relative_position_bias_table"]
    place = [(y, x) for y in range(window) for x in range(window)]
    pairs = torch.tensor(
        [[(a[0] - b[0] + window - 1) * (2 * window - 1) + a[1] - b[1] + window - 1 for b in place] for a in place]
    )
    bias = table[pairs].permute(2, 0, 1)  # (heads, window * window, window * window)

    def part(position: int, length: int) -> int:
        return 0 if position < length - window else 1 if position < length - shift else 2

    result = torch.zeros_like(normed)
    for top in range(0, rows, window):
        for left in range(0, columns, window):
            # Cell (top + y, left + x) of the shifted map is the cell `shift` further down and right of the map.
            y = torch.tensor([(top + each[0] + shift) % rows for each in place])
            x = torch.tensor([(left + each[1] + shift) % columns for each in place])
            qkv = _linear(weights, f"{name}.attn.qkv", normed[y, x])  # (window * window, 3 C)
            query, key, value = qkv.view(len(place), 3, heads, channels // heads).permute(1, 2, 0, 3)
            logits = query @ key.transpose(1, 2) * (channels // heads) ** -0.5 + bias
            if shift:
                regions = torch.tensor([3 * part(top + a, rows) + part(left + b, columns) for a, b in place])
                logits = logits + torch.where(regions[:, None] == regions, 0.0, -100.0)
            attended = (logits.softmax(-1) @ value).transpose(0, 1).flatten(1)
            result[y, x] = _linear(weights, f"{name}.attn.proj", attended)
    return result[:height, :width]
