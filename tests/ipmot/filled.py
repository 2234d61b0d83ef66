"""Weights of the detector and of the tracker from nothing but names, as the README beside the reference numbers states.

Names and shapes come from the packed reference numbers. Clips may also lie beside the checkout, in
`../shared/reference/dab_deformable_detr`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.fixtures import packed
from tests.shared_data import DATA

FOLDER = DATA.parent / "reference" / "dab_deformable_detr"


def filled_state(manifest: str) -> dict[str, Tensor]:
    """The whole state dict of `manifest.json` or `manifest_tracker.json`, aliases included."""
    entries = packed.read_json(f"dab_deformable_detr/{manifest}")["entries"]
    return {each["name"]: _filled(each.get("alias_of", each["name"]), each["shape"], each["fill"]) for each in entries}


def _filled(name: str, shape: list[int], rule: str) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if rule == "bn_var":
        return 1 + torch.rand(shape, generator=generator) * 0.1
    values = torch.randn(shape, generator=generator)
    if rule == "fan_in":
        return values / math.sqrt(values.numel() / shape[0])
    return values * 0.02 + (1 if rule == "norm_weight" else 0)


def pictures(count: int, height: int, width: int) -> Tensor:
    """(count, 3, height, width), as drawn for the reference."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.rand(3, height, width, generator=generator) for _ in range(count)])


def assert_as_stored(
    found: Tensor, stored: Mapping[str, NDArray[Any]], key: str, *, absolute: float = 0.0, relative: float = 0.0
) -> None:
    """Compare a tensor with one that is stored whole, or as shape, statistics and every so many values.

    Args:
        found: of any device.
        stored: an open npz.
        key: its name there, without a suffix.
        absolute: most that a value may differ by.
        relative: the same, in parts of the largest value that is stored.
    """
    values = found.detach().cpu().double().numpy()
    if key in stored:
        expected = stored[key].astype(np.float64)
        assert values.size == expected.size, key
        _close(values.reshape(expected.shape), expected, absolute, relative, key)
        return
    assert list(values.shape) == stored[f"{key}.shape"].tolist(), key
    sample, flat = stored[f"{key}.sample"].astype(np.float64), values.reshape(-1)
    places = np.arange(len(sample)) * flat.size // len(sample)
    _close(flat[places], sample, absolute, relative, key)
    statistics = np.array([flat.mean(), flat.std(), flat.min(), flat.max(), np.sqrt((flat**2).sum())])
    kept = stored[f"{key}.stats"]
    tolerance = absolute + relative * max(abs(kept[2]), abs(kept[3]))
    # A norm of n values may differ by sqrt(n) times what one value may.
    assert np.abs(statistics - kept)[:4].max() <= tolerance, (key, statistics, kept)
    assert abs(statistics[4] - kept[4]) <= tolerance * math.sqrt(flat.size), key


def _close(
    found: NDArray[np.float64], expected: NDArray[np.float64], absolute: float, relative: float, key: str
) -> None:
    if expected.size:
        largest = np.abs(expected).max()
        difference = np.abs(found - expected).max()
        assert difference <= absolute + relative * largest, f"{key}: off by {difference:.2e} (largest {largest:.3g})"
