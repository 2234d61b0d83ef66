"""The fast image encoder makes the numbers of segment-anything's."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from trackmill.models.sam import encoder as fast
from trackmill.models.sam.encoder import FastEncoder, attend_augmented, attend_biased


def enliven(module: nn.Module, seed: int) -> Any:
    """Every bias, norm and position of `module` random: those that start at 0 or 1 would hide an error."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.dim() == 1 or "pos" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def make_encoder(seed: int = 0, **settings: Any) -> ImageEncoderViT:
    torch.manual_seed(seed)
    chosen: dict[str, Any] = {
        "depth": 3,
        "embed_dim": 24,
        "img_size": 80,
        "num_heads": 3,
        "patch_size": 16,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        "use_rel_pos": True,
        "window_size": 2,
        "global_attn_indexes": (1,),
        "out_chans": 16,
    } | settings
    return enliven(ImageEncoderViT(**chosen), seed)


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, in standard deviations of what is expected."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    return float((found - expected).abs().max() / expected.std())


@pytest.mark.parametrize(
    "settings",
    [
        {},  # a grid of 5 x 5 in windows of 2: padding in both directions
        {"window_size": 5},  # windows as large as the picture
        {"img_size": 96, "window_size": 3},  # windows without padding
        {"use_rel_pos": False},  # no relative positions
        {"use_abs_pos": False, "qkv_bias": False},  # neither absolute positions nor biases
        {"global_attn_indexes": (0, 1, 2), "num_heads": 1},  # only global layers, one head
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
@torch.inference_mode()
def test_same_embeddings(settings: dict[str, Any], seed: int) -> None:
    encoder = make_encoder(seed, **settings)
    batch = torch.randn(2, 3, encoder.img_size, encoder.img_size)
    assert error(FastEncoder(encoder)(batch), encoder(batch)) < 1e-5


@torch.inference_mode()
def test_tables_of_another_length_are_interpolated() -> None:
    encoder = make_encoder()
    for block in encoder.blocks:
        block.attn.rel_pos_h = nn.Parameter(torch.randn(15, 8) * 0.3)
        block.attn.rel_pos_w = nn.Parameter(torch.randn(4, 8) * 0.3)
    batch = torch.randn(1, 3, 80, 80)
    assert error(FastEncoder(encoder)(batch), encoder(batch)) < 1e-5


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("pieces", [2**21, 100, 30])  # all at once, some heads, some queries (the last piece is short)
@torch.inference_mode()
def test_attention_is_the_written_out_one(augmented: bool, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "_BIAS_ELEMENTS", pieces)
    h, w, d = 2, 3, 8
    q, k, v = torch.randn(3, 2, 5, h * w, d).unbind(0)
    table_h, table_w = torch.randn(h, h, d), torch.randn(w, w, d)
    scores = q @ k.transpose(-2, -1) / d**0.5
    for i in range(h * w):
        for j in range(h * w):
            table = table_h[i // w, j // w] + table_w[i % w, j % w]
            scores[..., i, j] += q[..., i, :] @ table
    attend = attend_augmented if augmented else attend_biased
    assert error(attend(q, k, v, table_h, table_w), scores.softmax(-1) @ v) < 1e-5


@torch.inference_mode()
def test_more_channels_through_the_whole_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU nothing else would run the way of the global layers of a GPU."""
    encoder = make_encoder()
    batch = torch.randn(2, 3, 80, 80)
    expected = encoder(batch)
    monkeypatch.setattr(fast, "attend_biased", attend_augmented)
    assert error(FastEncoder(encoder)(batch), expected) < 1e-5


@torch.inference_mode()
def test_another_class_is_called() -> None:
    encoder = nn.Conv2d(3, 4, 16, stride=16)
    batch = torch.randn(2, 3, 32, 32)
    assert torch.equal(FastEncoder(encoder)(batch), encoder(batch))
    halved = FastEncoder(encoder, torch.bfloat16)(batch)
    assert 0 < error(halved, encoder(batch)) < 0.05


@torch.inference_mode()
def test_bfloat16_is_near_and_changes_no_parameter() -> None:
    encoder = make_encoder()
    before = copy.deepcopy(encoder.state_dict())
    batch = torch.randn(1, 3, 80, 80)
    assert 0 < error(FastEncoder(encoder, torch.bfloat16)(batch), encoder(batch)) < 0.1
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.slow
@torch.inference_mode()
def test_vit_b() -> None:
    """Of the size of the real one, two layers of each kind."""
    encoder = make_encoder(
        depth=4,
        embed_dim=768,
        img_size=1024,
        num_heads=12,
        window_size=14,
        global_attn_indexes=(1, 3),
        out_chans=256,
    )
    batch = torch.randn(1, 3, 1024, 1024)
    assert error(FastEncoder(encoder)(batch), encoder(batch)) < 1e-4
