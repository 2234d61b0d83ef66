"""Detic's weights from nothing but names, as the README beside the reference numbers states; and small networks."""

from __future__ import annotations

import math
import zlib
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.fixtures import packed
from tests.shared_data import DATA
from trackmill.models.detic.model import Detic
from trackmill.models.detic.network import DeticNetwork
from trackmill.models.detic.settings import Architecture

LVIS = DATA.parent / "reference" / "detic_r50" / "lvis_vocabulary.npz"
"""The vectors of LVIS's classes, too large for the repository; beside the checkout, or not there."""

SMALL = Architecture(
    name="small",
    backbone="swin",
    width=8,
    depths=(1, 2, 1, 1),
    heads=(1, 2, 2, 4),
    window=3,
    channels=64,  # two for each group of the norms: one would be none on a map of a single cell
    hidden=48,
    embedding=16,
)
"""A network of a million parameters, with whatever the large one has."""


@cache
def read_manifest(name: str) -> dict[str, Any]:
    """`manifest.json` of `detic_r50` or `detic_swinb`."""
    manifest: dict[str, Any] = packed.read_json(f"{name}/manifest.json")
    return manifest


def rebuild_names(name: str) -> list[str]:
    """Names of the tensors that are drawn: all but those that no detection depends on."""
    return [each["name"] for each in _drawn(name)]


def _drawn(name: str) -> list[dict[str, Any]]:
    entries = read_manifest(name)["entries"]
    return [each for each in entries if each["fill"] not in ("keep", "classifier") and ".base.fc." not in each["name"]]


@cache
def _rebuilt(name: str) -> dict[str, Tensor]:
    return {each["name"]: fill(each["name"], each["shape"], each["fill"]) for each in _drawn(name)}


def forget() -> None:
    """Let go of what `rebuild_state` keeps, which is up to half a gigabyte."""
    _rebuilt.cache_clear()


def rebuild_state(name: str) -> dict[str, Tensor]:
    """The state dict of `detic_r50` or `detic_swinb` under official names, without what no detection depends on.

    The tensors are shared between calls: clone what is written to.
    """
    return dict(_rebuilt(name))


def fill(name: str, shape: list[int] | tuple[int, ...], rule: str) -> Tensor:
    """One tensor, drawn with a generator seeded by the CRC-32 of its name."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if rule == "running_var":
        return 1 + 0.1 * torch.rand(tuple(shape), generator=generator)
    drawn = torch.randn(tuple(shape), generator=generator)
    match rule:
        case "matrix":
            return drawn / math.sqrt(math.prod(shape) / shape[0])
        case "near_one":
            return 1 + 0.02 * drawn
        case "vector":
            return 0.02 * drawn
        case "vector+4":
            return 4 + 0.02 * drawn
        case "vector-2":
            return -2 + 0.02 * drawn
    raise ValueError(f"{name}: no rule called {rule!r}")


def rule_of(name: str, values: Tensor) -> str:
    """The rule that the recipe has for a tensor of this name and shape."""
    if name.endswith("bbox_pred.bias"):
        return "vector+4" if "centernet_head" in name else "vector"
    if name.endswith("agn_hm.bias"):
        return "vector-2"
    if name.endswith("running_var"):
        return "running_var"
    if values.ndim >= 2:
        return "matrix"
    norm = ".norm" in name or ".bn" in name or "downsample.1." in name or name.split(".")[-2] in ("1", "4", "7", "10")
    return "near_one" if name.endswith(".scale") or (norm and name.endswith("weight")) else "vector"


def small_network(num_classes: int = 5, architecture: Architecture = SMALL) -> DeticNetwork:
    """A network of the same kind, with weights of the same recipe."""
    network = DeticNetwork(architecture, num_classes)
    state = network.state_dict()
    for name, values in state.items():
        if not name.endswith(("relative_position_index", "zs_weight")):
            values.copy_(fill(name, tuple(values.shape), rule_of(name, values)))
    vectors = torch.randn(num_classes, architecture.embedding, generator=torch.Generator().manual_seed(num_classes))
    for classifier in network.roi_heads.classifiers:
        classifier.zs_weight = torch.nn.functional.pad(torch.nn.functional.normalize(vectors, dim=1).t(), (0, 1))
    return network


def small_detic(num_classes: int = 5, **options: Any) -> Detic:
    """A detector on `small_network`."""
    return Detic(small_network(num_classes), [f"class {index}" for index in range(num_classes)], **options)


def custom20() -> Tensor:
    """(20, 512), the made vocabulary of the reference run."""
    return torch.randn(20, 512, generator=torch.Generator().manual_seed(zlib.crc32(b"custom20")))


def lvis_vectors() -> NDArray[np.float32]:
    """(1203, 512) raw vectors of LVIS's classes."""
    with np.load(LVIS, allow_pickle=False) as stored:
        vectors: NDArray[np.float32] = stored["embeddings"].astype(np.float32)
    return vectors


def official_image(name: str) -> NDArray[Any]:
    """The input of a reference run, (H, W, 3) RGB: `rand` in float32, or `truck` in uint8."""
    if name == "truck":
        return packed.read_picture("detic_r50/truck.webp")
    drawn = torch.rand(3, 256, 320, generator=torch.Generator().manual_seed(0)) * 255
    return drawn.permute(1, 2, 0).numpy()


def noise_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks and noise: (H, W, 3) uint8."""
    drawn = np.random.default_rng((seed, height, width))
    rough = drawn.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
    blocks = rough.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    return np.clip(blocks + drawn.integers(-20, 20, (height, width, 3)), 0, 255).astype(np.uint8)
