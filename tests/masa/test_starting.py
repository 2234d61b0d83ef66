"""Foreign backbones go into a model, whole and nothing else; what does not belong there is named."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50, resnet101

import trackmill.models.masa
from tests.masa.rebuild import read_manifest
from trackmill.models.backbones.lite0 import imagenet_lite0
from trackmill.models.detic.mmdet_names import to_mmdet
from trackmill.models.masa.model import Masa
from trackmill.models.masa.starting import start_backbone
from trackmill.models.masa.variants import VARIANTS

State = dict[str, Tensor]


def _empty(name: str) -> Masa:
    """A model whose tensors are there but were never drawn, which is quick."""
    with torch.device("meta"):
        model = Masa(VARIANTS[name])
    return model.to_empty(device="cpu")


def _numbered(shapes: dict[str, torch.Size]) -> State:
    """A number of its own in each tensor."""
    counts = [1 + place if name.endswith("num_batches_tracked") else 1.0 + place for place, name in enumerate(shapes)]
    return {name: torch.full(tuple(shape), count) for (name, shape), count in zip(shapes.items(), counts)}


def _shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: each.shape for name, each in module.state_dict().items()}


def _assert_started(model: Masa, before: State, wanted: State) -> None:
    """Exactly these tensors have changed."""
    after = model.state_dict()
    for name, values in after.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(values, wanted.get(name, before[name]).to(values.dtype)), name
    assert wanted.keys() <= after.keys()


def _before(model: Masa) -> State:
    for each in model.state_dict().values():
        each.zero_()
    return {name: torch.zeros_like(each) for name, each in model.state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda own: own,
        lambda own: {"state_dict": own},
        lambda own: own | {"rpn_head.rpn_cls.bias": torch.ones(3), "track_head.other": torch.ones(3)},
    ],
    ids=["bare", "wrapped", "with heads"],
)
def test_the_backbone_of_masas_own_checkpoint(wrap: Callable[[State], State]) -> None:
    model = _empty("masa_r50")
    own = _numbered({name: shape for name, shape in _shapes(model).items() if name.startswith("backbone.")})
    before = _before(model)
    assert start_backbone(model, wrap(own)) == "a checkpoint of masa_r50"
    _assert_started(model, before, own)


def test_torchvisions_resnet() -> None:
    with torch.device("meta"):
        shapes = _shapes(resnet50())
    theirs = _numbered(shapes)
    model = _empty("masa_r50")
    before = _before(model)
    assert start_backbone(model, theirs) == "a ResNet classifier"
    _assert_started(model, before, {f"backbone.{n}": v for n, v in theirs.items() if not n.startswith("fc.")})


def test_sams_own_checkpoint() -> None:
    model = _empty("masa_sam_vitb")
    own = _numbered({n: s for n, s in _shapes(model).items() if n.startswith("detector.")})
    before = _before(model)
    for encoder, what in (
        ("image_encoder.", "a SAM checkpoint"),
        ("backbone.", "a SAM checkpoint with renamed encoder"),
    ):
        theirs = {name.removeprefix("detector.").replace("backbone.", encoder, 1): own[name] for name in own}
        model.load_state_dict(before)
        assert start_backbone(model, theirs) == what
        _assert_started(model, before, own)


def test_a_detector_in_mmdetections_form() -> None:
    model = _empty("masa_gdino")
    prefix = "detector.backbone."
    own = _numbered({n: s for n, s in _shapes(model).items() if n.startswith(prefix)})
    # This buffer numbers pairs and has to be what it is.
    fresh = trackmill.models.masa.load("masa_gdino").state_dict()
    own |= {name: fresh[name] for name in own if name.endswith(".relative_position_index")}
    model.load_state_dict(fresh)
    theirs = {name.removeprefix("detector."): values for name, values in own.items()}
    theirs["language_model.x"] = torch.ones(1)
    before = {name: values.clone() for name, values in fresh.items()}
    assert start_backbone(model, theirs) == "a detector with a Swin backbone"
    _assert_started(model, before, own)


def test_imagenet_weights_of_the_small_backbone() -> None:
    wanted = trackmill.models.masa.load("masa_lite0", "imagenet").backbone.state_dict()
    model = trackmill.models.masa.load("masa_lite0", seed=3)
    assert start_backbone(model, imagenet_lite0()) == "an EfficientNet"
    found = model.backbone.state_dict()
    assert all(torch.equal(found[name], values) for name, values in wanted.items())


def _detics_tensors(manifest: str) -> State:
    """Names, shapes and numbers of the backbone of a Detic of its own code, and something of its heads."""
    entries = read_manifest(manifest)["entries"]
    shapes = {each["name"]: each["shape"] for each in entries if each["name"].startswith("backbone.bottom_up.")}
    state = {
        name: torch.arange(math.prod(shape), dtype=torch.float32).view(shape)
        if len(shape) == 1 or ".downsample." in name
        else torch.full(shape, float(place))
        for place, (name, shape) in enumerate(shapes.items())
        if not name.endswith((".relative_position_index", "num_batches_tracked"))
    }
    return state | {"roi_heads.box_predictor.0.cls_score.linear.weight": torch.zeros(512, 1024)}


def test_a_detic_of_its_own_code() -> None:
    """Its names become MASA's, and what merges patches comes in MASA's order."""
    model = _empty("masa_detic")
    for name, values in model.state_dict().items():
        if not name.endswith(".relative_position_index"):
            values.zero_()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    index = "stages.0.blocks.0.attn.w_msa.relative_position_index"
    assert f"detector.backbone.{index}" in before
    theirs = _detics_tensors("detic_swinb")
    assert start_backbone(model, {"model": theirs}) == "a Detic checkpoint"
    after = model.state_dict()
    changed = [name for name, values in after.items() if not torch.equal(values, before[name])]
    assert all(name.startswith("detector.backbone.") for name in changed) and len(changed) > 300
    merging = theirs["backbone.bottom_up.layers.1.downsample.reduction.weight"]  # (512, 4 * 256)
    found = after["detector.backbone.stages.1.downsample.reduction.weight"]
    # Channel 3 of the cell in the second row, first column: the second of four blocks there, 4 * 3 + 2 here.
    assert torch.equal(found[:, 4 * 3 + 2], merging[:, 256 + 3])
    # The same in mmdetection's names.
    again = _empty("masa_detic")
    again.load_state_dict(before)
    assert start_backbone(again, to_mmdet(theirs)) == "a Detic checkpoint in mmdetection's form"
    assert all(torch.equal(values, after[name]) for name, values in again.state_dict().items())


def test_the_resnet_of_a_detic() -> None:
    theirs = _detics_tensors("detic_r50")
    model = _empty("masa_r50")
    before = _before(model)
    wanted = {name.replace("bottom_up.base.", ""): values for name, values in theirs.items() if ".bottom_up." in name}
    wanted = {name: values for name, values in wanted.items() if not name.startswith("backbone.fc.")}
    for given in (theirs, to_mmdet(theirs)):
        model.load_state_dict(before)
        assert start_backbone(model, given).startswith("a Detic checkpoint")
        _assert_started(model, before, wanted)
    with pytest.raises(ValueError, match="a Detic checkpoint, with the backbone resnet50; masa_detic has swin_b_"):
        start_backbone(_empty("masa_detic"), theirs)


def _tables(length: int) -> State:
    return {"backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table": torch.zeros(length, 4)}


@pytest.mark.parametrize(
    ("name", "state", "said"),
    [
        ("masa_lite0", {"a": torch.zeros(1)}, r"no backbone recognised in 1 tensors \(a, ...\); masa_lite0 takes"),
        ("masa_sam_vitb", {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1280)}, "with the backbone sam_vit_h"),
        ("masa_sam_vith", {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1024)}, "with the backbone sam_vit_l"),
        ("masa_detic", _tables(529), "with the backbone swin_b_window12; masa_detic has swin_b_window7"),
        ("masa_detic", _tables(169), "does not fit masa_detic: .* missing"),
        ("masa_lite0", {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, "takes MASA's checkpoint, timm's"),
    ],
)
def test_other_weights_are_named(name: str, state: State, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        start_backbone(_empty(name), state)


def test_a_deeper_resnet_is_refused() -> None:
    with torch.device("meta"):
        state = resnet101().state_dict()
    with pytest.raises(ValueError, match="a deeper ResNet"):
        start_backbone(_empty("masa_r50"), state)
