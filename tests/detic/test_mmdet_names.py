"""Both sets of names of one Detic: there and back bit for bit, and the same sums out of the patches in either order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.masa.rebuild import read_manifest
from trackmill.models.backbones.swin import PatchMerging, Swin, merging_order
from trackmill.models.detic.mmdet_names import (
    has_mmdet_names,
    mmdet_name,
    official_name,
    to_mmdet,
    to_official,
)

State = dict[str, Tensor]


def _official_state(seed: int = 0) -> State:
    """A tensor of each kind of name, in Detic's own names."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "backbone.bottom_up.patch_embed.proj.weight": (8, 3, 4, 4),
        "backbone.bottom_up.layers.0.blocks.1.attn.relative_position_bias_table": (169, 2),
        "backbone.bottom_up.layers.0.blocks.1.mlp.fc1.bias": (32,),
        "backbone.bottom_up.layers.0.downsample.reduction.weight": (16, 32),
        "backbone.bottom_up.layers.0.downsample.norm.weight": (32,),
        "backbone.bottom_up.layers.0.downsample.norm.bias": (32,),
        "backbone.bottom_up.norm1.weight": (16,),
        "backbone.bottom_up.base.layer1.0.downsample.0.weight": (8, 8, 1, 1),
        "backbone.fpn_lateral4.weight": (8, 16, 1, 1),
        "backbone.fpn_output3.bias": (8,),
        "backbone.top_block.p6.weight": (8, 8, 3, 3),
        "proposal_generator.centernet_head.bbox_tower.10.weight": (8,),
        "proposal_generator.centernet_head.bbox_tower.9.weight": (8, 8, 3, 3),
        "proposal_generator.centernet_head.agn_hm.bias": (1,),
        "proposal_generator.centernet_head.bbox_pred.bias": (4,),
        "proposal_generator.centernet_head.scales.4.scale": (1,),
        "roi_heads.box_head.2.fc1.weight": (16, 392),
        "roi_heads.box_predictor.1.cls_score.linear.bias": (8,),
        "roi_heads.box_predictor.1.cls_score.zs_weight": (8, 4),
        "roi_heads.box_predictor.1.freq_weight": (3,),
        "roi_heads.box_predictor.0.bbox_pred.2.weight": (4, 16),
        "roi_heads.mask_head.mask_fcn4.weight": (8, 8, 3, 3),
        "roi_heads.mask_head.predictor.bias": (1,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _assert_same(found: State, wanted: State) -> None:
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], values) for name, values in wanted.items())


def test_names_of_every_kind() -> None:
    found = set(to_mmdet(_official_state()))
    assert found == {
        "backbone.patch_embed.projection.weight",
        "backbone.stages.0.blocks.1.attn.w_msa.relative_position_bias_table",
        "backbone.stages.0.blocks.1.ffn.layers.0.0.bias",
        "backbone.stages.0.downsample.reduction.weight",
        "backbone.stages.0.downsample.norm.weight",
        "backbone.stages.0.downsample.norm.bias",
        "backbone.norm1.weight",
        "backbone.layer1.0.downsample.0.weight",
        "neck.lateral_convs.1.conv.weight",
        "neck.fpn_convs.0.conv.bias",
        "neck.fpn_convs.3.conv.weight",
        "rpn_head.reg_convs.3.gn.weight",
        "rpn_head.reg_convs.3.conv.weight",
        "rpn_head.conv_cls.bias",
        "rpn_head.conv_reg.bias",
        "rpn_head.scales.4.scale",
        "roi_head.bbox_head.2.shared_fcs.0.weight",
        "roi_head.bbox_head.1.fc_cls.linear.bias",
        "roi_head.bbox_head.1.fc_cls.zs_weight",
        "roi_head.bbox_head.1.freq_weight",
        "roi_head.bbox_head.0.fc_reg.2.weight",
        "roi_head.mask_head.convs.3.conv.weight",
        "roi_head.mask_head.conv_logits.bias",
    }


def test_there_and_back_bit_for_bit() -> None:
    official = _official_state()
    theirs = to_mmdet(official)
    assert theirs["rpn_head.scales.4.scale"].shape == ()
    assert has_mmdet_names(theirs) and not has_mmdet_names(official)
    _assert_same(to_official(theirs), official)
    # OpenMMLab's converter keeps the list of one number; a model that was saved again has the number.
    again = theirs | {"rpn_head.scales.4.scale": theirs["rpn_head.scales.4.scale"].reshape(1)}
    _assert_same(to_official(again), official)


def test_inside_masa_only_the_detector_is_taken() -> None:
    official = _official_state()
    inside = {f"detector.{name}": values for name, values in to_mmdet(official).items()}
    # Parts of MASA that are called like parts of Detic.
    beside = {name: torch.zeros(3) for name in ("rpn_head.rpn_conv.bias", "roi_head.bbox_head.fc_cls.bias")}
    beside |= {"masa_adapter.0.lateral_convs.0.conv.weight": torch.zeros(2), "track_head.embed_head.x": torch.zeros(2)}
    assert has_mmdet_names(beside | inside) and not has_mmdet_names(beside)
    _assert_same(to_official(beside | inside), official)


def test_names_of_others_stay() -> None:
    strange = {"backbone.fpn_lateral3x.weight": torch.zeros(1), "text.weight": torch.zeros(1)}
    strange |= {
        "backbone.stages.x.blocks.0.norm1.weight": torch.zeros(1),
        "roi_head.bbox_head.0.fc_clsx": torch.zeros(1),
    }
    assert to_official(strange).keys() == strange.keys() == to_mmdet(strange).keys()
    # Beside a detector inside MASA, a name without the prefix is not taken for a part of it.
    mixed = {"detector.neck.fpn_convs.0.conv.bias": torch.zeros(1), "backbone.norm1.bias": torch.ones(1)}
    assert list(to_official(mixed)) == ["backbone.fpn_output3.bias", "backbone.norm1.bias"]


def test_only_patch_merging_is_copied() -> None:
    official = _official_state()
    theirs = to_mmdet(official)
    copied = {name for name in official if official[name].data_ptr() != theirs[str(mmdet_name(name))].data_ptr()}
    assert copied == {name for name in official if ".bottom_up.layers.0.downsample." in name}


def test_the_index_of_a_value_in_a_patch() -> None:
    channels = 3
    values = torch.arange(8.0 * channels).view(2, -1)
    found = merging_order(values, "mmdet")
    for channel in range(channels):
        for row in range(2):
            for column in range(2):
                wanted = values[:, (2 * column + row) * channels + channel]
                assert torch.equal(found[:, 4 * channel + 2 * row + column], wanted)
    assert torch.equal(merging_order(found, "original"), values)


def test_patches_merged_in_the_official_order_give_the_same() -> None:
    """Detic's own code puts four pictures of every second row and column behind each other."""
    torch.manual_seed(0)
    merging = PatchMerging(6)
    torch.nn.init.normal_(merging.norm.weight)
    torch.nn.init.normal_(merging.norm.bias)
    tokens = torch.randn(2, 5, 7, 6)
    padded = F.pad(tokens, (0, 0, 0, 1, 0, 1))
    parts = [padded[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    norm = [merging_order(values.detach(), "original") for values in (merging.norm.weight, merging.norm.bias)]
    merged = F.linear(
        F.layer_norm(torch.cat(parts, -1), (24,), *norm), merging_order(merging.reduction.weight.detach(), "original")
    )
    torch.testing.assert_close(merged, merging(tokens))


def test_every_name_of_our_swin_is_known() -> None:
    swin = Swin(7, width=8, depths=(1, 2), heads=(1, 2))
    names = [f"backbone.{name}" for name in swin.state_dict()]
    assert [mmdet_name(str(official_name(name))) for name in names] == names


def test_every_name_of_the_official_models_is_known() -> None:
    for model in ("detic_swinb", "detic_r50"):
        names = [entry["name"] for entry in read_manifest(model)["entries"]]
        theirs = [str(mmdet_name(name)) for name in names]
        assert len(set(theirs)) == len(names)
        assert [official_name(name) for name in theirs] == names
