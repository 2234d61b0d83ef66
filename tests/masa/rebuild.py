"""Weights from nothing but names: each tensor of a reference manifest is drawn again by the stated recipe."""

from __future__ import annotations

import math
import zlib
from functools import cache
from typing import Any

import numpy as np
import torch

from tests.fixtures import packed
from trackmill.models.masa.model import Masa


@cache
def read_manifest(name: str) -> dict[str, Any]:
    """`manifest.json` of a reference folder such as `masa_r50`."""
    manifest: dict[str, Any] = packed.read_json(f"{name}/manifest.json")
    return manifest


@cache
def _rebuilt(name: str) -> dict[str, torch.Tensor]:
    return {
        entry["name"]: fill(entry["name"], entry["shape"], entry["fill"]) for entry in read_manifest(name)["entries"]
    }


def rebuild_state(name: str) -> dict[str, torch.Tensor]:
    """The state dict of the reference run `name` (`masa_r50`, `masa_sam_vitb`): official keys, float32 and int64.

    The tensors are shared between calls: clone what is written to.
    """
    return dict(_rebuilt(name))


def fill(name: str, shape: list[int] | tuple[int, ...], rule: str) -> torch.Tensor:
    """One tensor, drawn with a generator seeded by the CRC-32 of its name (the README beside the manifest)."""
    if rule == "zero":
        return torch.zeros(tuple(shape), dtype=torch.int64)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if rule == "bn_var":
        return 1 + 0.1 * torch.rand(tuple(shape), generator=generator)
    drawn = torch.randn(tuple(shape), generator=generator)
    scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) >= 2 else 0.02
    match rule:
        case "weight":
            return drawn * scale
        case "offset":
            return drawn * scale * 0.1
        case "vec" | "bn_mean" | "pos_embed":
            return drawn * 0.02
        case "norm_weight" | "scalar":
            return 1 + 0.02 * drawn
    raise ValueError(f"{name}: no rule called {rule!r}")


def stored_samples(values: torch.Tensor) -> torch.Tensor:
    """The entries that a fixture keeps of a map: 200 spread over the flattened values, or all of fewer."""
    flat = values.detach().reshape(-1)
    if flat.numel() <= 200:
        return flat
    return flat[(torch.arange(200) * (flat.numel() - 1)) // 199]


def official_images(name: str) -> torch.Tensor:
    """The input of a fixture, (1, 3, H, W) float R, G, B in 0..255: `rand256x320`, or `truck` (480 x 720)."""
    if name == "truck":
        return torch.from_numpy(packed.read_picture("masa_r50/image_truck480.webp")).permute(2, 0, 1).float()[None]
    height, width = map(int, name.removeprefix("rand").split("x"))
    image = torch.rand((3, height, width), generator=torch.Generator().manual_seed(0)) * 255
    return image.flip(0)[None]  # drawn as B, G, R


def check_map(values: torch.Tensor, fixture: Any, key: str, tolerance: float) -> float:
    """Compare a map with a fixture's `<key>.shape`, `.sample` and `.stats`; gives the largest difference of a sample.

    The mean and deviation are over all values, so they are held to the same tolerance; extremes are single values.
    """
    assert list(values.shape) == fixture[f"{key}.shape"].tolist(), key
    difference = float((stored_samples(values) - torch.from_numpy(fixture[f"{key}.sample"])).abs().max())
    assert difference <= tolerance, f"{key}: samples differ by {difference:.3g}"
    doubled = values.detach().double()
    stats = torch.stack([doubled.mean(), doubled.std(unbiased=False), doubled.min(), doubled.max()])
    apart = float((stats - torch.from_numpy(fixture[f"{key}.stats"])).abs().max())
    assert apart <= tolerance, f"{key}: mean, deviation, least or largest value differ by {apart:.3g}"
    return difference


@torch.no_grad()
def check_forward(model: Masa, images: torch.Tensor, fixture: Any) -> None:
    """Hold input, backbone, pyramid, fusion, adapter, offsets, pooled regions and embeddings to a fixture.

    Tolerances are those that the README beside the fixture suggests.
    """
    adapter, seen = model.masa_adapter, {}
    watched = {"pyramid": adapter[0], "offsets": adapter[1].dyhead_blocks[0].spatial_conv_offset}
    watched |= {f"fusion_block{index}": block for index, block in enumerate(adapter[1].dyhead_blocks)}
    handles = [
        module.register_forward_hook(lambda *call, key=key: seen.setdefault(key, []).append(call[-1]))
        for key, module in watched.items()
    ]
    try:
        batch = model.prepare(images)
        maps = model.backbone_maps(batch)
        levels = adapter(maps)
    finally:
        for handle in handles:
            handle.remove()

    check_map(batch, fixture, "input_padded", 1e-6)
    groups = {"backbone": (maps, 1e-4), "pyramid": (seen["pyramid"][0], 1e-4), "adapter": (levels, 5e-5)}
    groups |= {key: (seen[key][0], 5e-5) for key in watched if key.startswith("fusion_block")}
    for key, (found, tolerance) in groups.items():
        assert f"{key}.{len(found)}.shape" not in fixture, f"{key}: too few maps"
        for index, values in enumerate(found):
            check_map(values, fixture, f"{key}.{index}", tolerance)
    check_map(seen["offsets"][1], fixture, "offset_conv_block0_level1", 5e-5)

    boxes = torch.from_numpy(fixture["boxes"])
    regions = model.pool(levels, [boxes])
    check_map(regions, fixture, "track_roi_feats", 5e-5)
    np.testing.assert_allclose(regions[:, 0].numpy(), fixture["track_roi_feats_channel0"], rtol=0, atol=5e-5)
    (embeddings,) = model.embed_levels(levels, [boxes])
    np.testing.assert_allclose(embeddings.numpy(), fixture["track_embeds"], rtol=0, atol=5e-5)
