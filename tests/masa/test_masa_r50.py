"""MASA-R50: every map and embedding of the official implementation, with weights made from their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

import trackmill.models.masa
from tests.fixtures import packed
from tests.masa.rebuild import check_forward, official_images, read_manifest, rebuild_state
from trackmill.models.backbones.resnet import ResNet50
from trackmill.models.masa.model import Masa


@pytest.fixture(scope="module")
def model() -> Masa:
    return trackmill.models.masa.load("masa_r50", rebuild_state("masa_r50"))


def test_weights_are_redrawn_as_they_were_drawn() -> None:
    for name in ("masa_r50", "masa_sam_vitb"):
        state = rebuild_state(name)
        for entry in read_manifest(name)["entries"]:
            values = state[entry["name"]].double()
            room = 1e-7 * max(1.0, entry["abs_sum"])
            assert abs(float(values.sum()) - entry["sum"]) <= room, entry["name"]
            assert abs(float(values.abs().sum()) - entry["abs_sum"]) <= room, entry["name"]


def test_the_state_dict_has_the_official_names_and_shapes(model: Masa) -> None:
    ours = {name: (list(values.shape), str(values.dtype)) for name, values in model.state_dict().items()}
    official = {
        entry["name"]: (entry["shape"], f"torch.{entry['dtype']}") for entry in read_manifest("masa_r50")["entries"]
    }
    assert ours == official


@pytest.mark.parametrize("image", ["rand256x320", pytest.param("truck", marks=pytest.mark.slow)])
def test_every_map_is_the_official_one(model: Masa, image: str) -> None:
    check_forward(model, official_images(image), packed.read_arrays(f"masa_r50/forward_{image}.npz"))


def test_the_stride_is_in_the_first_convolution() -> None:
    ours, theirs = ResNet50(), resnet50()
    for name, layer in ours.named_modules():
        if isinstance(layer, nn.Conv2d):
            other = theirs.get_submodule(name)
            moved = {"conv1": "conv2", "conv2": "conv1"}
            stage, _, rest = name.partition(".0.")
            if stage in ("layer2", "layer3", "layer4") and rest in moved:
                other = theirs.get_submodule(f"{stage}.0.{moved[rest]}")
            assert layer.stride == other.stride, name
    assert set(ours.state_dict()) == {name for name in theirs.state_dict() if not name.startswith("fc.")}


def test_batch_norms_of_the_backbone_never_leave_evaluation() -> None:
    model = trackmill.models.masa.load("masa_lite0").train()
    modes: dict[str, set[bool]] = {"backbone": set(), "masa_adapter": set()}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            modes[name.split(".")[0]].add(module.training)
    assert modes == {"backbone": {False}, "masa_adapter": {True}}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_training_moves_the_statistics_of_the_adapter_only() -> None:
    model = trackmill.models.masa.load("masa_lite0").train()
    before: dict[str, Any] = {name: values.clone() for name, values in model.state_dict().items()}
    model.features(torch.rand(2, 3, 64, 64) * 255)

    def moved(values: Tensor, name: str) -> bool:
        return not torch.equal(values, before[name])

    changed = {name for name, values in model.state_dict().items() if moved(values, name)}
    assert changed and all(name.startswith("masa_adapter.0.") and ".bn." in name for name in changed)
