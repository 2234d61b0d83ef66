"""DINOv2 ViT-S/14 against the published code: every array of the reference run, with weights that are drawn again.

The tolerance is that of `tests/fixtures/reference/dinov2_vits14/README.md`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.fixtures import packed
from trackmill.models.backbones.dinov2 import DinoV2
from trackmill.models.backbones.multilevel import MultiLevelBackbone, build_backbone
from trackmill.models.backbones.official import load_backbone

TOLERANCE = 1e-4
SIZES = {"224": (224, 224), "518": (518, 518), "rect": (154, 280)}


def fill(name: str, shape: list[int], rule: str) -> Tensor:
    """One tensor, by the rules of the README."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    match rule:
        case "fan_in":
            return drawn / math.sqrt(math.prod(shape) / shape[0])
        case "vector":
            return drawn * 0.02
        case "norm_weight" | "layer_scale":
            return 1 + drawn * 0.02
        case "table":
            return drawn * 0.5
    raise ValueError(f"{name}: no rule called {rule!r}")


def official_state() -> dict[str, Tensor]:
    """What `dinov2_vits14_pretrain.pth` would hold."""
    entries = packed.read_json("dinov2_vits14/manifest.json")["entries"]
    return {each["name"]: fill(each["name"], each["shape"], each["fill"]) for each in entries}


@pytest.fixture(scope="module")
def reference() -> dict[str, NDArray[Any]]:
    return packed.read_arrays("dinov2_vits14/dinov2_vits14.npz")


@pytest.fixture(scope="module")
def backbone() -> Iterator[MultiLevelBackbone]:
    made = build_backbone("dinov2_vits14")
    assert load_backbone(made, official_state()) == "DINOv2 vits14"
    yield made


@pytest.fixture(scope="module")
def images() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(1, 3, *size, generator=generator) for name, size in SIZES.items()}


def check(found: Tensor, reference: dict[str, Any], key: str, checked: set[str]) -> None:
    """An array, whole or by its shape, statistics and sample."""
    values = found.detach()
    if key in reference:
        np.testing.assert_allclose(values.numpy(), reference[key], rtol=0, atol=TOLERANCE, err_msg=key)
        checked.add(key)
        return
    assert list(values.shape) == reference[f"{key}.shape"].tolist(), key
    flat, sample = values.flatten(), reference[f"{key}.sample"]
    places = torch.arange(len(sample)) * flat.numel() // len(sample)
    np.testing.assert_allclose(flat[places].numpy(), sample, rtol=0, atol=TOLERANCE, err_msg=key)
    double = flat.double()
    stats = [double.mean(), double.std(correction=0), double.min(), double.max(), double.norm()]
    expected = reference[f"{key}.stats"]
    np.testing.assert_allclose(torch.stack(stats)[:4].numpy(), expected[:4], rtol=0, atol=TOLERANCE, err_msg=key)
    np.testing.assert_allclose(float(stats[4]), expected[4], rtol=1e-6, err_msg=key)
    checked.update(f"{key}.{part}" for part in ("shape", "stats", "sample"))


@torch.inference_mode()
def test_every_array_is_the_published_one(
    reference: dict[str, NDArray[Any]], backbone: MultiLevelBackbone, images: dict[str, Tensor]
) -> None:
    network, checked = backbone.network, set[str]()
    assert isinstance(network, DinoV2)
    assert network.blocks_read == (2, 5, 8, 11)
    for name, image in images.items():
        rows, columns = (side // 14 for side in SIZES[name])
        check(network.positions(rows, columns), reference, f"{name}.pos", checked)
        check(network.tokens_in(image), reference, f"{name}.tokens_in", checked)
        for block, tokens, level in zip(network.blocks_read, network.block_tokens(image), backbone(image), strict=True):
            key = f"{name}.layer.{block}"
            check(tokens[:, 1:], reference, f"{key}.patch", checked)
            check(level.flatten(2).transpose(1, 2), reference, f"{key}.patch_normed", checked)
            check(tokens[:, 0], reference, f"{key}.cls", checked)
    assert checked == set(reference)
