"""MASA on SAM: the taps, the official names, and every map of the official implementation."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import segment_anything
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

import trackmill.models.masa
from tests.fixtures import packed
from tests.masa.rebuild import check_forward, official_images, read_manifest, rebuild_state
from trackmill.models.backbones.sam import TAPS, SamDetector
from trackmill.models.masa.model import Masa


def tiny_sam(**_: Any) -> Sam:
    """SAM with twelve small blocks on 64 x 64 pixels, and position tables that are not zero."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=64,
        embed_dim=16,
        depth=12,
        num_heads=2,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        global_attn_indexes=(2, 5, 8, 11),
        window_size=3,
    )
    for name, parameter in encoder.named_parameters():
        if "pos" in name:
            torch.nn.init.normal_(parameter)
    return Sam(
        image_encoder=encoder,
        prompt_encoder=PromptEncoder(256, (4, 4), (64, 64), 16),
        mask_decoder=MaskDecoder(
            transformer_dim=256, transformer=TwoWayTransformer(depth=1, embedding_dim=256, num_heads=8, mlp_dim=64)
        ),
    )


@torch.no_grad()
def test_maps_are_the_blocks_outputs_and_lead_to_sams_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", tiny_sam)
    detector = SamDetector("vit_b").eval()
    outputs: list[torch.Tensor] = []
    for block in detector.backbone.blocks:
        block.register_forward_hook(lambda *call: outputs.append(call[-1]))
    batch = torch.randn(2, 3, 64, 64)
    embedding = detector.backbone(batch)
    expected = [outputs[index].permute(0, 3, 1, 2) for index in (2, 5, 8, 11)]
    maps = detector(batch)
    for found, wanted in zip(maps, expected, strict=True):
        assert torch.equal(found, wanted)
    assert torch.equal(detector.image_embedding(maps), embedding)


def test_the_last_tap_is_the_last_block() -> None:
    assert TAPS["vit_b"][-1] == 12 - 1 and TAPS["vit_h"][-1] == 32 - 1


def test_the_official_names_load_and_the_detector_stays_frozen() -> None:
    model = trackmill.models.masa.load("masa_sam_vitb", rebuild_state("masa_sam_vitb")).train()
    ours = {name: list(values.shape) for name, values in model.state_dict().items()}
    assert ours == {entry["name"]: entry["shape"] for entry in read_manifest("masa_sam_vitb")["entries"]}
    assert not any(parameter.requires_grad for parameter in model.detector.parameters())
    assert not any(module.training for module in model.detector.modules())
    assert model.rpn_head.training


@pytest.mark.slow  # SAM's encoder and three DyHead blocks at 1024 x 1024 take a minute
def test_every_map_is_the_official_one() -> None:
    model: Masa = trackmill.models.masa.load("masa_sam_vitb", rebuild_state("masa_sam_vitb"))
    fixture = packed.read_arrays("masa_sam_vitb/forward_rand256x320.npz")
    check_forward(model, official_images("rand256x320"), fixture)
