"""Sizes of the paper's variants (Table 15), and what their networks ask of a device. No weights are made here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.scaletrack.small import small_model
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.variants import VARIANTS

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh")
"""Operators that wait for a value, have a result of unknown size, or (the last) bring numbers from the host."""


class Watch(TorchDispatchMode):
    """Notes operators that a CUDA graph cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if any(word in name for word in WAITS):
            self.seen.add(name)
        if "aten.index.Tensor" in name and any(each is not None and each.dtype == torch.bool for each in args[1]):
            self.seen.add("index by a mask")
        return func(*args, **(kwargs or {}))


def run(model: ScaleTrack, frames: Tensor, boxes: Tensor, sizes: Tensor | None) -> None:
    """The first frame of a video, and one that follows."""
    frame_of_box = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    earlier = None
    for _ in range(2):
        maps = model.backbone_maps(frames, sizes)
        _, earlier = model.encode_maps(maps, boxes, frame_of_box, sizes, earlier=earlier)


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [("scaletrack_s", 30e6, 38e9), ("scaletrack_r50", 37e6, 33e9)],
)
def test_table_15(name: str, parameters: float, multiply_adds: float) -> None:
    """Within a tenth of the paper's numbers, for one frame with 100 boxes.

    Counted are the multiply-adds of convolutions and linear layers (the paper's FLOPs), as its numbers show: without
    the products of queries and keys in the backbone's attention, which its counter does not see.
    """
    with torch.device("meta"):
        model = ScaleTrack(VARIANTS[name]).eval()
        side = model.variant.side
        frames, boxes = torch.empty(1, 3, side, side), torch.empty(100, 4)
        frame_of_box = torch.zeros(100, dtype=torch.int64)
        with torch.no_grad(), FlopCounterMode(display=False) as counter, Watch() as watch:
            model.encode_maps(model.backbone_maps(frames), boxes, frame_of_box)
    assert sum(each.numel() for each in model.parameters()) == pytest.approx(parameters, rel=0.1)
    by_operator = counter.get_flop_counts()["Global"]
    counted = sum(count for operator, count in by_operator.items() if "bmm" not in str(operator)) / 2
    assert counted == pytest.approx(multiply_adds, rel=0.1)
    assert not watch.seen


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_nothing_waits_for_a_value(device: str) -> None:
    """On the CPU's paths, and on those of other devices."""
    model = small_model(bands=True, extra_levels=1).to(device)
    frames, boxes = torch.rand(1, 3, 64, 64, device=device), torch.rand(5, 4, device=device)
    sizes = torch.full((1, 2), 50, device=device)
    for each in (sizes, None):
        with torch.no_grad(), Watch() as watch:
            run(model, frames, boxes, each)
        assert not watch.seen


def test_watching_sees_what_it_is_for() -> None:
    with Watch() as watch:
        values = torch.tensor([1.0, 2.0])
        bool(values[0] > 0)
        values[values > 1]
        values.nonzero()
        values.new_tensor([3.0, 4.0])
    assert len(watch.seen) >= 4
