"""Multi-scale deformable attention gives the published operator's numbers and gradients.

The reference arrays, and how weights are drawn, are described in `fixtures/reference/deformable_attention`. The packed
arrays lie in this repository, so nothing here is skipped.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from tests.detic.rebuild import fill
from tests.fixtures.packed import read_arrays, read_json
from trackmill.models.layers import deformable_attention as layer
from trackmill.models.layers.deformable_attention import DeformableAttention, deformable_attention

NAME = "deformable_attention"
CASES = ("tiny", "four_level", "outside", "three_level_one_point")
RULES = {"fan_in": "matrix", "vector": "vector"}


@functools.cache
def arrays() -> dict[str, Tensor]:
    return {key: torch.from_numpy(values) for key, values in read_arrays(f"{NAME}/{NAME}.npz").items()}


def shapes(key: str) -> list[tuple[int, int]]:
    return [(int(height), int(width)) for height, width in arrays()[key]]


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("path", ["rows", "maps", "owners"])
def test_core(case: str, path: str) -> None:
    """All ways to compute it: on a CPU, on a GPU, and with queries that each name their own maps."""
    stored = {key.removeprefix(f"core.{case}."): values for key, values in arrays().items() if f".{case}." in key}
    sizes = shapes(f"core.{case}.shapes")
    values, locations, weights = (stored[key].clone().requires_grad_() for key in ("value", "locations", "weights"))
    if path == "rows":
        out = deformable_attention(values, sizes, locations, weights)
    elif path == "maps":
        out = layer._sampled_maps(values, sizes, locations, weights)
    else:
        batch, queries = locations.shape[:2]
        order = torch.randperm(batch * queries, generator=torch.Generator().manual_seed(0))
        owner = torch.arange(batch).repeat_interleave(queries)[order]
        flat = deformable_attention(
            values, sizes, locations.flatten(0, 1)[order], weights.flatten(0, 1)[order], owner=owner
        )
        out = torch.empty_like(flat).index_copy(0, order, flat).view(batch, queries, -1)
    same(out, stored["out"])
    (out * stored["cotangent"]).sum().backward()
    compared = 0
    for name, tensor in (("grad_value", values), ("grad_weights", weights), ("grad_locations", locations)):
        if name in stored:
            assert tensor.grad is not None
            same(tensor.grad, stored[name])
            compared += 1
    assert compared == (2 if case == "outside" else 3)


def reference_module() -> DeformableAttention:
    module = DeformableAttention(256, levels=4, heads=8, points=4)
    entries = read_json(f"{NAME}/manifest.json")["entries"]
    module.load_state_dict({each["name"]: fill(each["name"], each["shape"], RULES[each["fill"]]) for each in entries})
    return module


@pytest.mark.parametrize("case", ["out_points", "out_points_masked", "out_boxes_masked"])
def test_module(case: str) -> None:
    stored = {key.removeprefix("module."): values for key, values in arrays().items()}
    references = stored["ref_boxes"] if "boxes" in case else stored["ref_points"]
    mask = stored["padding_mask"] if "masked" in case else None
    module, sizes = reference_module(), shapes("module.shapes")
    with torch.no_grad():
        same(module(stored["query"], references, stored["src"], sizes, mask), stored[case])
        # The same with queries of all pictures in one list.
        batch, queries = stored["query"].shape[:2]
        owner = torch.arange(batch).repeat_interleave(queries)
        flat = module(stored["query"].flatten(0, 1), references.flatten(0, 1), stored["src"], sizes, mask, owner=owner)
    same(flat.view(batch, queries, -1), stored[case])


def test_every_array_is_compared() -> None:
    cores = {key.split(".")[1] for key in arrays() if key.startswith("core.")}
    outputs = {key for key in arrays() if key.startswith("module.out")}
    assert cores == set(CASES)
    assert outputs == {"module.out_points", "module.out_points_masked", "module.out_boxes_masked"}
