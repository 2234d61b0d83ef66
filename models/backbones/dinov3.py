"""DINOv3's vision transformers (Simeoni et al., 2025): timm's networks, from files of timm or of Meta.

No file comes with Trackmill, and none is fetched by name: their licence asks each user to agree to it. Positions are
rotary and computed for any size, so nothing is resized here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import timm
import torch
from timm.models.eva import Eva
from torch import Tensor, nn

PATCH = 16
"""Pixels along each side of a patch."""

_NOT_READ = ("rope_embed.", "mask_token", "local_cls_norm.")
"""Beginnings of Meta's names of what no feature depends on: a buffer that is computed, and parts for pretraining."""


def dinov3(name: str) -> tuple[nn.Module, int]:
    """A network by timm's name, such as `vit_small_patch16_dinov3`, with fresh weights, and its width."""
    network: nn.Module = timm.create_model(name, num_classes=0)
    return network, int(cast(Eva, network).embed_dim)


def read_maps(network: nn.Module, batch: Tensor) -> list[Tensor]:
    """(B, 3, H, W) normalised, sides multiples of 16, to four maps (B, C, H / 16, W / 16).

    Patch tokens after the ends of the four quarters of the network, such as blocks 2, 5, 8, 11 of twelve, each through
    the final norm.
    """
    transformer = cast(Eva, network)
    depth = len(transformer.blocks)
    ends = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    maps = transformer.forward_intermediates(batch, indices=ends, norm=True, intermediates_only=True)
    return list(cast(list[Tensor], maps))


def official_dinov3(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """timm's name of the network that a file belongs to, and its tensors by timm's names.

    Meta's files have one bias for queries, keys and values, of which that of the keys is masked, and which is zero in
    most of the published models: timm has for each size a network with those biases (`_qkvb`) and one without. The one
    without is taken where all of them are zero.

    Args:
        tensors: as timm writes them (`reg_token`, `gamma_1`) or as Meta does (`storage_tokens`, `ls1.gamma`).

    Returns:
        Name and tensors. The name is "" where no network of timm has that width and depth.
    """
    metas = "storage_tokens" in tensors
    renamed: dict[str, Tensor] = {}
    for name, values in tensors.items():
        if metas and (name.startswith(_NOT_READ) or name.endswith("attn.qkv.bias_mask")):
            continue
        if metas and name.endswith("attn.qkv.bias") and values.ndim == 1 and len(values) % 3 == 0:
            queries, _, own = values.chunk(3)
            renamed[name.replace("qkv.bias", "q_bias")] = queries
            renamed[name.replace("qkv.bias", "v_bias")] = own
            continue
        new = name.replace("storage_tokens", "reg_token").replace("ls1.gamma", "gamma_1")
        new = new.replace("ls2.gamma", "gamma_2")
        # Gated layers: Meta's w1, w2, w3 are timm's gate, value and projection.
        new = new.replace("mlp.w1.", "mlp.fc1_g.").replace("mlp.w2.", "mlp.fc1_x.").replace("mlp.w3.", "mlp.fc2.")
        renamed[new] = values
    biases = [values for name, values in renamed.items() if name.endswith((".q_bias", ".v_bias"))]
    if biases and metas and not any(bool(torch.any(each != 0)) for each in biases):
        renamed = {name: each for name, each in renamed.items() if not name.endswith((".q_bias", ".v_bias"))}
        biases = []
    width = len(renamed["cls_token"].flatten())
    depth = len({name.split(".")[1] for name in renamed if name.startswith("blocks.")})
    gated = any(name.endswith("mlp.fc1_g.weight") for name in renamed)
    size = _SIZES.get((width, depth, gated), "")
    return f"vit_{size}_patch16_dinov3{'_qkvb' if biases else ''}" if size else "", renamed


_SIZES = {
    (384, 12, False): "small",
    (384, 12, True): "small_plus",
    (768, 12, False): "base",
    (1024, 24, False): "large",
    (1280, 32, True): "huge_plus",
}
"""By width, number of blocks, and whether the feed-forward layers are gated."""
