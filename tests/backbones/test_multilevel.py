"""Backbones by name: maps as promised, and official files in every form that they come in."""

from __future__ import annotations

import re

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from trackmill.models.backbones.dinov2 import DinoV2
from trackmill.models.backbones.lite0 import imagenet_lite0
from trackmill.models.backbones.multilevel import BACKBONES, MultiLevelBackbone, build_backbone
from trackmill.models.backbones.official import FILES, files_of, load_backbone, load_packaged, recognise_backbone
from trackmill.models.backbones.ssdlite_mobilenet import INSTALL, is_packaged, packaged_mobilenet
from trackmill.models.backbones.swin import Swin

SMALL = (
    "dinov2_vits14",
    "dinov2_vits14_reg4",
    "vit_small_patch16_dinov3",
    "resnet50",
    "swin_t",
    "lite0",
    "ssdlite_mobilenet",
)
"""One of each kind; the others differ in widths and depths."""


def fresh(name: str) -> MultiLevelBackbone:
    return build_backbone(name, seed=0)


@torch.inference_mode()
@pytest.mark.parametrize("name", SMALL)
def test_maps_have_the_channels_and_strides_that_are_promised(name: str) -> None:
    backbone = fresh(name)
    height, width = 2 * backbone.divisor, 3 * backbone.divisor
    maps = backbone(backbone.normalise(torch.rand(2, 3, height, width)))
    found = [tuple(each.shape) for each in maps]
    assert found == [
        (2, channels, height // stride, width // stride)
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    with pytest.raises(ValueError, match=f"multiples of {backbone.divisor} pixels, not .*: pad them"):
        backbone(torch.zeros(1, 3, height + 1, width))


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no backbone is called 'dinov2_vits41'.*dinov2_vits14"):
        build_backbone("dinov2_vits41")


def test_what_each_takes_is_said() -> None:
    assert all(files_of(name) in FILES.values() for name in BACKBONES)


def test_batch_norms_keep_their_statistics_in_training_mode() -> None:
    backbone = fresh("lite0").train()
    before = {name: values.clone() for name, values in backbone.state_dict().items()}
    backbone(torch.rand(1, 3, 32, 32))
    assert all(torch.equal(values, before[name]) for name, values in backbone.state_dict().items())


def same_after(name: str, tensors: dict[str, Tensor]) -> MultiLevelBackbone:
    """A fresh backbone into which the tensors went."""
    backbone = fresh(name)
    load_backbone(backbone, tensors)
    return backbone.requires_grad_(False)


def drawn(network: torch.nn.Module) -> dict[str, Tensor]:
    """Its state with numbers that show: norms and tables are no ones and zeros."""
    generator = torch.Generator().manual_seed(1)
    for name, values in network.state_dict().items():
        if values.is_floating_point():
            noise = torch.randn(values.shape, generator=generator) * 0.02
            values += noise.abs() if "running_var" in name else noise
    return dict(network.state_dict())


@torch.inference_mode()
def test_dinov2_with_registers_of_its_authors_and_of_timm() -> None:
    theirs = timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, dynamic_img_size=True).eval()
    found = same_after("dinov2_vits14_reg4", drawn(theirs))
    image = torch.rand(1, 3, 70, 98)
    # With registers, both antialias and resize the table to exactly as many patches.
    expected = theirs.forward_intermediates(image, indices=[2, 5, 8, 11], norm=True, intermediates_only=True)
    for level, other in zip(found(image), expected, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-4, atol=1e-4)
    official = dict(found.network.state_dict())
    assert {"register_tokens", "mask_token"} <= set(official)
    assert torch.equal(same_after("dinov2_vits14_reg4", official)(image)[-1], found(image)[-1])


def test_registers_are_told_apart() -> None:
    small = {name: DinoV2(384, 12, 6, registers=count).state_dict() for name, count in (("", 0), ("_reg4", 4))}
    for name, state in small.items():
        found = recognise_backbone(state)
        assert found is not None and found.name == f"dinov2_vits14{name}"
    with pytest.raises(ValueError, match=r"this is DINOv2 vits14 with registers; this is dinov2_vits14 and takes"):
        load_backbone(fresh("dinov2_vits14"), small["_reg4"])


@pytest.mark.parametrize(("size", "width", "depth"), [("vits14", 384, 12), ("vitb14", 768, 12), ("vitl14", 1024, 24)])
def test_sizes_of_dinov2_are_told_by_width_and_depth(size: str, width: int, depth: int) -> None:
    names = ("ls1.gamma", "norm1.weight")
    state = {f"blocks.{block}.{name}": torch.zeros(width) for block in range(depth) for name in names}
    state |= {"cls_token": torch.zeros(1, 1, width), "pos_embed": torch.zeros(1, 1370, width)}
    found = recognise_backbone(state | {"patch_embed.proj.weight": torch.zeros(width, 3, 14, 14)})
    assert found is not None and found.name == f"dinov2_{size}"
    found = recognise_backbone(state | {"patch_embed.proj.weight": torch.zeros(width, 3, 16, 16)})
    assert found is not None and found.name == "" and "patches of 16 pixels" in found.what


@torch.inference_mode()
@pytest.mark.parametrize("biases", ["", "_qkvb"])
def test_dinov3_of_timm_and_of_meta(biases: str) -> None:
    name = f"vit_small_patch16_dinov3{biases}"
    theirs = timm.create_model(name, num_classes=0).eval()
    state = drawn(theirs)
    found, image = same_after(name, state), torch.rand(1, 3, 48, 80)
    expected = theirs.forward_intermediates(image, indices=[2, 5, 8, 11], norm=True, intermediates_only=True)
    metas = same_after(name, in_metas_form(state))
    for level, other, again in zip(found(image), expected, metas(image), strict=True):
        assert torch.equal(level, other) and torch.equal(again, other)


def in_metas_form(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Meta writes it, with all that timm leaves out."""
    written = {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}
    for name, values in state.items():
        if name.endswith(".v_bias"):
            continue
        if name.endswith(".q_bias"):
            parts = [values, torch.full_like(values, 9.0), state[name.replace(".q_", ".v_")]]  # that of keys is masked
            written[name.replace("q_bias", "qkv.bias")] = torch.cat(parts)
            continue
        new = name.replace("reg_token", "storage_tokens")
        written[new.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = values
        if name.endswith("qkv.weight") and name.replace("qkv.weight", "q_bias") not in state:
            written[name.replace("weight", "bias")] = torch.zeros(len(values))
            written[name.replace("weight", "bias_mask")] = torch.zeros(len(values))
    return written


@torch.inference_mode()
def test_resnet50_of_torchvision_and_of_a_detic() -> None:
    theirs = torchvision.models.resnet50(weights=None).eval()
    state, image = drawn(theirs), torch.rand(1, 3, 64, 96)
    found = same_after("resnet50", state)
    values = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
    values = theirs.layer2(theirs.layer1(values))
    torch.testing.assert_close(found(image)[0], values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found(image)[2], theirs.layer4(theirs.layer3(values)), rtol=1e-3, atol=1e-3)
    detic = {f"backbone.bottom_up.base.{name}": each for name, each in state.items()}
    assert torch.equal(same_after("resnet50", detic)(image)[2], found(image)[2])


@torch.inference_mode()
def test_swin_of_torchvision_timm_and_its_authors() -> None:
    theirs = torchvision.models.swin_t(weights=None).eval()
    state, image = drawn(theirs), torch.rand(1, 3, 128, 160)
    # A file may leave the numbering of pairs out.
    found = same_after("swin_t", {name: each for name, each in state.items() if "index" not in name})
    # A map of at most one window, such as the last one here, is not shifted by torchvision.
    maps = found(image)
    torch.testing.assert_close(maps[0], stage_of(theirs, image, 3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps[1], stage_of(theirs, image, 5), rtol=1e-4, atol=1e-4)
    own = {name: each.clone() for name, each in found.network.state_dict().items()}
    assert torch.equal(own["norm3.weight"], state["norm.weight"])
    authors = {
        name.replace("norm3.", "norm."): each for name, each in own.items() if not name.startswith(("norm1.", "norm2."))
    }
    authors |= {"head.weight": torch.zeros(3, 768), "layers.0.blocks.1.attn_mask": torch.zeros(4, 49, 49)}
    timms = {
        re.sub(r"layers\.(\d)\.down", lambda place: f"layers.{int(place[1]) + 1}.down", name): each
        for name, each in authors.items()
        if not name.endswith(("index", "attn_mask"))
    }
    with torch.device("meta"):
        assert set(timms) - {"head.weight"} <= set(timm.create_model("swin_tiny_patch4_window7_224").state_dict())
    for other in (authors, timms, {f"backbone.bottom_up.{name}": each for name, each in own.items()}):
        load_backbone(found, drawn(build_backbone("swin_t").network))
        load_backbone(found, other)
        assert torch.equal(found(image)[2], maps[2])


def stage_of(network: torch.nn.Module, image: Tensor, last: int) -> Tensor:
    """torchvision's map after some of its `features`, through a norm without weights, as (B, C, H, W)."""
    values = image
    for part in list(network.features)[: last + 1]:  # type: ignore[union-attr]
        values = part(values)
    return torch.nn.functional.layer_norm(values, values.shape[-1:]).permute(0, 3, 1, 2)


def test_other_sizes_are_named() -> None:
    window12 = Swin(12, width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), spelling="original").state_dict()
    with pytest.raises(ValueError, match=r"a Swin of width 96 with \(2, 2, 6, 2\) blocks in its .* windows of 12; "):
        load_backbone(fresh("swin_t"), window12)
    deeper = {f"layer{stage}.0.conv3.weight": torch.zeros(1) for stage in (1, 2, 3, 4)}
    deeper |= {f"layer3.{block}.conv3.weight": torch.zeros(1) for block in range(23)}
    with pytest.raises(ValueError, match=r"this is a ResNet with \[1, 1, 23, 1\] blocks.*; model_x stands on resnet50"):
        load_backbone(fresh("resnet50"), {"conv1.weight": torch.zeros(64, 3, 7, 7), **deeper}, for_whom="model_x")
    with pytest.raises(ValueError, match=r"no backbone recognised in 1 tensors \(a, ...\)"):
        load_backbone(fresh("lite0"), {"a": torch.zeros(1)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("norm.weight"), "1 missing: norm.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (lambda state: state.update({"norm.bias": torch.zeros(3)}), r"norm.bias \(3,\) instead of \(384,\)"),
        (lambda state: state["norm.bias"].fill_(float("nan")), "with NaN or infinity: norm.bias"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_and_nothing_is_loaded(change: object, words: str) -> None:
    backbone = fresh("dinov2_vits14")
    before = backbone.network.cls_token.clone()  # type: ignore[operator,union-attr]
    state = {name: each.clone() for name, each in DinoV2(384, 12, 6).state_dict().items()}
    change(state)  # type: ignore[operator]
    with pytest.raises(ValueError, match=words):
        load_backbone(backbone, state)
    assert torch.equal(backbone.network.cls_token, before)  # type: ignore[arg-type]


def test_lite0_is_told_from_other_efficientnets() -> None:
    official = timm.create_model("tf_efficientnet_lite0", num_classes=3).state_dict()
    assert load_backbone(fresh("lite0"), official) == "EfficientNet-Lite0"
    with pytest.raises(ValueError, match="an EfficientNet of another kind"):
        load_backbone(fresh("lite0"), timm.create_model("efficientnet_b0").state_dict())


def test_weights_of_packages_go_by_a_word() -> None:
    backbone = fresh("lite0")
    load_packaged(backbone, "imagenet")
    packaged = imagenet_lite0()
    assert all(torch.equal(values, packaged[name]) for name, values in backbone.network.state_dict().items())
    with pytest.raises(
        ValueError, match=r'"packaged" is for the backbone ssdlite_mobilenet; m stands on lite0 and takes'
    ):
        load_packaged(backbone, "packaged", for_whom="m")


@pytest.mark.skipif(not is_packaged(), reason=INSTALL)
def test_the_person_detectors_trunk_goes_by_a_word() -> None:
    backbone = fresh("ssdlite_mobilenet")
    load_packaged(backbone, "packaged")
    for name, values in packaged_mobilenet().items():
        assert torch.equal(backbone.network.state_dict()[name], values), name
