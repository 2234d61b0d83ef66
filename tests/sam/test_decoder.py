"""The folded mask decoder makes the numbers of segment-anything's, for the masks that are asked for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from tests.sam.test_encoder import enliven, error
from trackmill.models.sam.decoder import FoldedDecoder
from trackmill.models.sam.segmenter import Decoded

Modules = tuple[MaskDecoder, PromptEncoder]


def make_modules(
    seed: int = 0, depth: int = 2, dim: int = 32, heads: int = 2, grid: tuple[int, int] = (4, 6), **settings: Any
) -> Modules:
    torch.manual_seed(seed)
    prompts = PromptEncoder(dim, grid, (16 * grid[0], 16 * grid[1]), mask_in_chans=4)
    transformer = TwoWayTransformer(depth=depth, embedding_dim=dim, mlp_dim=2 * dim, num_heads=heads, **settings)
    decoder = MaskDecoder(
        transformer_dim=dim, transformer=transformer, iou_head_depth=2, iou_head_hidden_dim=16
    )  # 1 + 3 mask tokens
    return enliven(decoder, seed), enliven(prompts, seed)


def make_inputs(modules: Modules, num_prompts: int = 7, boxes: bool = False) -> tuple[Tensor, Tensor]:
    """An embedding (C, h, w), and sparse embeddings (N, 2, C) of points or boxes."""
    prompts = modules[1]
    embedding = torch.randn(prompts.embed_dim, *prompts.image_embedding_size)
    height, width = prompts.input_image_size
    if boxes:
        corners = torch.rand(num_prompts, 4) * torch.tensor([width, height, width, height])
        return embedding, prompts(points=None, boxes=corners, masks=None)[0]
    points = torch.rand(num_prompts, 1, 2) * torch.tensor([width, height])
    return embedding, prompts(points=(points, torch.ones(num_prompts, 1)), boxes=None, masks=None)[0]


def reference(modules: Modules, embedding: Tensor, sparse: Tensor, multimask: bool) -> tuple[Tensor, Tensor]:
    """(N, K, 4h, 4w) logits and (N, K) predicted IoU."""
    decoder, prompts = modules
    return decoder(
        image_embeddings=embedding[None],
        image_pe=prompts.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=prompts.no_mask_embed.weight[0, :, None, None],
        multimask_output=multimask,
    )


@pytest.mark.parametrize(
    ("seed", "shape"),
    [
        (0, {"depth": 1}),  # the picture's tokens are shared up to the last attention
        (1, {"depth": 2}),  # as in the real model
        (2, {"depth": 3, "grid": (5, 3)}),  # higher than wide
        (3, {"depth": 2, "heads": 8, "dim": 64}),
        (4, {"depth": 2, "heads": 1, "attention_downsample_rate": 1}),
        (5, {"depth": 2, "activation": nn.GELU}),
    ],
)
@pytest.mark.parametrize("boxes", [False, True])
@torch.inference_mode()
def test_same_masks(seed: int, shape: dict[str, Any], boxes: bool) -> None:
    modules = make_modules(seed, **shape)
    embedding, sparse = make_inputs(modules, boxes=boxes)
    logits, iou = reference(modules, embedding, sparse, multimask=not boxes)
    found = FoldedDecoder(*modules)(embedding, sparse, multimask=not boxes)
    assert error(found.logits, logits.flatten(0, 1)) < 1e-5
    torch.testing.assert_close(found.iou, iou, rtol=1e-5, atol=1e-5)
    assert found.kept.tolist() == list(range(iou.numel()))


@pytest.mark.parametrize("num_together", [1, 2, 3, 7, 100])
@torch.inference_mode()
def test_any_sub_batch(num_together: int) -> None:
    modules = make_modules()
    embedding, sparse = make_inputs(modules)
    logits, iou = reference(modules, embedding, sparse, multimask=True)
    ascending = iou.flatten().sort().values
    threshold = float(ascending[10] + ascending[11]) / 2  # between two: one may round to either side of itself
    found = FoldedDecoder(*modules, num_together=num_together)(embedding, sparse, multimask=True, iou_above=threshold)
    assert found.kept.tolist() == (iou.flatten() > threshold).nonzero()[:, 0].tolist()
    assert error(found.logits, logits.flatten(0, 1)[found.kept]) < 1e-5
    torch.testing.assert_close(found.iou, iou, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_together", [None, 3])
@torch.inference_mode()
def test_a_prompt_does_not_depend_on_the_others(num_together: int | None) -> None:
    modules = make_modules()
    decoder = FoldedDecoder(*modules, num_together=num_together)
    embedding, sparse = make_inputs(modules)
    together = decoder(embedding, sparse, multimask=True)
    for i in (0, 4, 6):
        alone = decoder(embedding, sparse[i : i + 1], multimask=True)
        assert error(alone.logits, together.logits[3 * i : 3 * i + 3]) < 1e-5
        torch.testing.assert_close(alone.iou[0], together.iou[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_together", [None, 4])
@pytest.mark.parametrize("tokens_read", [(4, 6), (3, 6), (4, 1), (1, 5)])
@torch.inference_mode()
def test_part_of_the_masks(tokens_read: tuple[int, int], num_together: int | None) -> None:
    modules = make_modules()
    embedding, sparse = make_inputs(modules)
    rows, columns = tokens_read
    logits, _ = reference(modules, embedding, sparse, multimask=True)
    found = FoldedDecoder(*modules, num_together=num_together)(
        embedding, sparse, multimask=True, tokens_read=tokens_read
    )
    assert error(found.logits, logits.flatten(0, 1)[:, : 4 * rows, : 4 * columns]) < 1e-5


@pytest.mark.parametrize("num_together", [1, 3])
@torch.inference_mode()
def test_refused_prompts_are_not_upscaled(num_together: int) -> None:
    modules = make_modules()
    embedding, sparse = make_inputs(modules)
    decoder = FoldedDecoder(*modules, num_together=num_together)
    every = decoder(embedding, sparse, multimask=True)
    threshold = float(every.iou.max(dim=1).values.sort().values[3])  # not above itself: 3 of 7 prompts are left
    num_upscaled = 0
    upscaling = decoder._upscaling

    def watch(keys: Tensor) -> Tensor:
        nonlocal num_upscaled
        num_upscaled += len(keys)
        return upscaling(keys)

    decoder._upscaling = watch  # type: ignore[assignment]
    found = decoder(embedding, sparse, multimask=True, iou_above=threshold)
    assert num_upscaled == 3
    assert torch.equal(found.kept, (every.iou.flatten() > threshold).nonzero()[:, 0])
    assert error(found.logits, every.logits[found.kept]) < 1e-5


@pytest.mark.parametrize("num_together", [None, 4])
@pytest.mark.parametrize("boxes", [False, True])
@torch.inference_mode()
def test_nothing_to_draw(num_together: int | None, boxes: bool) -> None:
    modules = make_modules()
    decoder = FoldedDecoder(*modules, num_together=num_together)
    num_masks = 1 if boxes else 3

    def check(decoded: Decoded, num_prompts: int) -> None:
        assert decoded.iou.shape == (num_prompts, num_masks) and decoded.iou.dtype == torch.float32
        assert decoded.kept.shape == (0,) and decoded.kept.dtype == torch.int64
        assert decoded.logits.shape == (0, 12, 8) and decoded.logits.dtype == torch.float32

    embedding, sparse = make_inputs(modules, boxes=boxes)
    check(decoder(embedding, sparse, multimask=not boxes, tokens_read=(3, 2), iou_above=1e9), 7)
    check(decoder(embedding, sparse[:0], multimask=not boxes, tokens_read=(3, 2)), 0)


@torch.inference_mode()
def test_bfloat16_is_near_and_changes_no_parameter() -> None:
    modules = make_modules()
    before = copy.deepcopy([module.state_dict() for module in modules])
    embedding, sparse = make_inputs(modules)
    exact = FoldedDecoder(*modules)(embedding, sparse, multimask=True)
    found = FoldedDecoder(*modules, dtype=torch.bfloat16)(embedding, sparse, multimask=True)
    assert 0 < float((found.logits - exact.logits).std() / exact.logits.std()) < 0.03
    torch.testing.assert_close(found.iou, exact.iou, rtol=0, atol=0.03)
    for module, state in zip(modules, before):
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_no_layers() -> None:
    with pytest.raises(ValueError, match="depth 1 or more"):
        FoldedDecoder(*make_modules(depth=0))


@pytest.mark.slow
@pytest.mark.parametrize("boxes", [False, True])
@torch.inference_mode()
def test_real_size(boxes: bool) -> None:
    modules = make_modules(dim=256, heads=8, grid=(64, 64))
    embedding, sparse = make_inputs(modules, num_prompts=8, boxes=boxes)
    logits, iou = reference(modules, embedding, sparse, multimask=not boxes)
    found = FoldedDecoder(*modules)(embedding, sparse, multimask=not boxes)
    assert error(found.logits, logits.flatten(0, 1)) < 2e-5
    torch.testing.assert_close(found.iou, iou, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@torch.inference_mode()
def test_compiled_pads_the_last_sub_batch() -> None:
    modules = make_modules()
    embedding, sparse = make_inputs(modules)
    logits, iou = reference(modules, embedding, sparse, multimask=True)
    decoder = FoldedDecoder(*modules, compiled=True, num_together=4)
    sizes = []
    transform = decoder._transform
    decoder._transform = lambda part, *shared: sizes.append(len(part)) or transform(part, *shared)
    found = decoder(embedding, sparse, multimask=True)
    assert sizes == [4, 4]
    assert error(found.logits, logits.flatten(0, 1)) < 1e-5
    torch.testing.assert_close(found.iou, iou, rtol=1e-5, atol=1e-5)
