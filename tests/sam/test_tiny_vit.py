"""TinyViT: the checkpoint's names and shapes, and the arithmetic of an independent implementation."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("segment_anything")

from torch import Tensor, nn  # noqa: E402

from trackmill.models.sam.tiny_vit import TinyVit, WindowAttention  # noqa: E402

SMALL = {"widths": (8, 16, 24, 32), "depths": (1, 2, 1, 1), "heads": (1, 2, 3, 4), "windows": (7, 7, 14, 7)}


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight, bias, table and statistic random, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in model.state_dict().items():
            if not values.is_floating_point():
                continue
            noise = torch.randn(values.shape, generator=generator)
            if name.endswith("running_var") or (values.ndim == 1 and name.endswith("weight")):
                values.copy_(0.5 + noise.abs())
            elif values.ndim > 1 and "attention_biases" not in name:
                values.copy_(noise / values[0].numel() ** 0.5)
            else:
                values.copy_(noise)
    return model.eval()


def timm_name(name: str) -> str:
    """What timm calls a tensor of ours; it counts a reduction to the stage after it."""
    name = name.replace("patch_embed.seq.0.", "patch_embed.conv1.").replace("patch_embed.seq.2.", "patch_embed.conv2.")
    name = re.sub(r"^layers\.(\d)\.downsample", lambda found: f"stages.{int(found[1]) + 1}.downsample", name)
    return re.sub(r"^layers\.", "stages.", name).replace(".c.", ".conv.")


@pytest.mark.parametrize(
    ("height", "width", "strides"),
    [
        (64, 64, (2, 2, 1)),  # 8, 4 and 4 tokens a side: windows of 7 and 14 are filled up
        (224, 224, (2, 2, 2)),  # 28, 14 and 7: windows fit, the last is a single one
        (232, 96, (2, 2, 1)),  # 29, 15 and 15 by 12, 6 and 6: odd sides, and more windows down than across
    ],
)
def test_features_are_those_of_an_independent_implementation(height: int, width: int, strides: tuple[int, ...]) -> None:
    timm = pytest.importorskip("timm.models.tiny_vit")
    ours = randomised(TinyVit(**SMALL, strides=strides))
    theirs = timm.TinyVit(
        num_classes=0,
        embed_dims=SMALL["widths"],
        depths=SMALL["depths"],
        num_heads=SMALL["heads"],
        window_sizes=SMALL["windows"],
    ).eval()
    for stage, stride in zip(theirs.stages[1:], strides):
        stage.downsample.conv2.conv.stride = (stride, stride)
    unread = ("neck.", "head.", "norm_head.")
    tensors = {timm_name(name): values for name, values in ours.state_dict().items() if not name.startswith(unread)}
    loaded = theirs.load_state_dict(tensors, strict=False)
    assert not loaded.unexpected_keys and all(name.startswith("head.") for name in loaded.missing_keys)

    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = theirs.forward_features(images), ours.features(images)
    assert expected.std() > 0.1  # not degenerate
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.std()))


def test_attention_is_the_formula() -> None:
    """Written out pair by pair, from the definition of a bias by distance."""
    attention = randomised(WindowAttention(6, heads=2, window=3))
    tokens = torch.randn(1, 9, 6, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found = attention(tokens)
        rows = attention.qkv(attention.norm(tokens))[0].unflatten(-1, (2, 3, 3))  # token, head, q k v, d
        heads = []
        for head in range(2):
            scores = torch.empty(9, 9)
            for i in range(9):
                for j in range(9):
                    distance = abs(i // 3 - j // 3) * 3 + abs(i % 3 - j % 3)
                    scores[i, j] = rows[i, head, 0] @ rows[j, head, 1] / 3**0.5
                    scores[i, j] += attention.attention_biases[head, distance]
            heads.append(scores.softmax(-1) @ rows[:, head, 2])
        expected = attention.proj(torch.cat(heads, -1))
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-5)


def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.{kind}", (width,)) for kind in ("weight", "bias"))


def convolution(name: str, out: int, inputs: int, kernel: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.c.weight", (out, inputs, kernel, kernel)
    yield from norm(f"{name}.bn", out)
    yield from ((f"{name}.bn.{kind}", (out,)) for kind in ("running_mean", "running_var"))
    yield f"{name}.bn.num_batches_tracked", ()


def linear(name: str, out: int, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, inputs)
    yield f"{name}.bias", (out,)


def published_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of `image_encoder.*` in `mobile_sam.pt`."""
    yield from convolution("patch_embed.seq.0", 32, 3, 3)
    yield from convolution("patch_embed.seq.2", 64, 32, 3)
    for block in ("layers.0.blocks.0", "layers.0.blocks.1"):
        yield from convolution(f"{block}.conv1", 256, 64, 1)
        yield from convolution(f"{block}.conv2", 256, 1, 3)
        yield from convolution(f"{block}.conv3", 64, 256, 1)
    for layer, width, blocks, heads, window in ((1, 128, 2, 4, 7), (2, 160, 6, 5, 14), (3, 320, 2, 10, 7)):
        before = {128: 64, 160: 128, 320: 160}[width]
        yield from convolution(f"layers.{layer - 1}.downsample.conv1", width, before, 1)
        yield from convolution(f"layers.{layer - 1}.downsample.conv2", width, 1, 3)
        yield from convolution(f"layers.{layer - 1}.downsample.conv3", width, width, 1)
        for block in (f"layers.{layer}.blocks.{i}" for i in range(blocks)):
            yield f"{block}.attn.attention_biases", (heads, window * window)
            yield from norm(f"{block}.attn.norm", width)
            yield from linear(f"{block}.attn.qkv", 3 * width, width)
            yield from linear(f"{block}.attn.proj", width, width)
            yield from norm(f"{block}.mlp.norm", width)
            yield from linear(f"{block}.mlp.fc1", 4 * width, width)
            yield from linear(f"{block}.mlp.fc2", width, 4 * width)
            yield from convolution(f"{block}.local_conv", width, 1, 3)
    yield from norm("norm_head", 320)
    yield from linear("head", 1000, 320)
    yield "neck.0.weight", (256, 320, 1, 1)
    yield from norm("neck.1", 256)
    yield "neck.2.weight", (256, 256, 3, 3)
    yield from norm("neck.3", 256)


def test_names_and_shapes_are_those_of_the_published_checkpoint() -> None:
    with torch.device("meta"):
        ours = {name: tuple(values.shape) for name, values in TinyVit().state_dict().items()}
    assert ours == dict(published_shapes())


def test_the_neck_reads_the_features_and_nothing_but_them() -> None:
    from segment_anything.modeling import ImageEncoderViT

    model = randomised(TinyVit(64, **SMALL, out_chans=12))
    neck = ImageEncoderViT(img_size=32, embed_dim=32, out_chans=12, depth=0).neck  # SAM's own
    neck.load_state_dict(model.neck.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected: Tensor = neck(model.features(images))
        found = model(images)
    assert found.shape == (1, 12, 4, 4) and model.img_size == 64
    torch.testing.assert_close(found, expected)


def test_other_pictures_of_a_batch_change_nothing() -> None:
    model = randomised(TinyVit(96, **SMALL))
    images = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        together, alone = model(images), model(images[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_whole_encoder_against_an_independent_implementation() -> None:
    timm = pytest.importorskip("timm")
    ours = randomised(TinyVit())
    theirs = timm.create_model("tiny_vit_5m_224", num_classes=0).eval()
    theirs.stages[3].downsample.conv2.conv.stride = (1, 1)
    tensors = {timm_name(name): values for name, values in ours.state_dict().items()}
    loaded = theirs.load_state_dict(tensors, strict=False)
    assert all(name.startswith("head.") for name in loaded.missing_keys)

    images = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected, found = theirs.forward_features(images), ours.features(images)
        embedding = ours(images)
    assert embedding.shape == (1, 256, 64, 64) and expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.std()))
