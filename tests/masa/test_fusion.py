"""Fusion: the convolutions and the misread offsets against loops over cells, in any size and batch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trackmill.models.layers.deform_conv import DeformConvNorm, reread
from trackmill.models.masa.fusion import DeformBlock, DyHeadBlock, Fusion
from trackmill.schemas.errors import JobError

CHANNELS = 16
SIZES = {"odd": [(7, 5), (4, 3), (2, 2)], "even": [(4, 8), (2, 4)], "one level": [(3, 4)]}


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_offsets_that_are_no_numbers_end_in_words_and_not_in_a_dead_process(wrong: float) -> None:
    """torchvision's CPU operator would read beyond its memory."""
    convolution = DeformConvNorm(16)
    values, weights = torch.randn(1, 16, 5, 6), torch.rand(1, 9, 5, 6)
    offsets = torch.randn(1, 18, 5, 6)
    offsets[0, 3, 2, 2] = wrong
    offsets.requires_grad_()
    result = convolution(values, offsets, weights)
    assert result.isnan().all(), "a trainer notices, and leaves the step out"
    result.sum().backward()
    assert offsets.grad is not None and offsets.grad.isnan().all()
    with torch.no_grad(), pytest.raises(JobError, match="nan or infinity where deformable convolution reads"):
        convolution(values, offsets, weights)


def block_of(kind: type[DeformBlock], compatible: bool) -> DeformBlock:
    """A block in double precision whose offsets reach over the border and between cells."""
    torch.manual_seed(3)
    block = kind(CHANNELS, compatible_offsets=compatible).double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.3)
    return block


def levels_of(sizes: list[tuple[int, int]], batch: int = 1) -> list[Tensor]:
    """Random levels."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, CHANNELS, *size, generator=generator, dtype=torch.float64) for size in sizes]


def pixel(values: Tensor, y: int, x: int) -> Tensor:
    """(C,) of one image (C, H, W); zero outside."""
    inside = 0 <= y < values.shape[1] and 0 <= x < values.shape[2]
    return values[:, y, x] if inside else values.new_zeros(len(values))


def sampled(values: Tensor, y: float, x: float) -> Tensor:
    """Bilinear mixture of the four cells around a place; (C,)."""
    top, left = math.floor(y), math.floor(x)
    down, right = y - top, x - left
    return (
        (1 - down) * (1 - right) * pixel(values, top, left)
        + (1 - down) * right * pixel(values, top, left + 1)
        + down * (1 - right) * pixel(values, top + 1, left)
        + down * right * pixel(values, top + 1, left + 1)
    )


def slow_convolution(values: Tensor, offsets: list[float], weights: list[float], kernel: Tensor, stride: int) -> Tensor:
    """Modulated deformable convolution of one image, told by flat buffers: no sizes of them are looked at.

    The buffers are walked through as the operator's kernel does, by the geometry of the result.
    """
    height = (values.shape[1] + 2 - 3) // stride + 1
    width = (values.shape[2] + 2 - 3) // stride + 1
    result = values.new_zeros(len(kernel), height, width)
    for y in range(height):
        for x in range(width):
            for tap in range(9):
                place = y * width + x
                dy = offsets[(2 * tap) * height * width + place]
                dx = offsets[(2 * tap + 1) * height * width + place]
                weight = weights[tap * height * width + place]
                found = sampled(values, y * stride - 1 + tap // 3 + dy, x * stride - 1 + tap % 3 + dx)
                result[:, y, x] += kernel[:, :, tap // 3, tap % 3] @ (found * weight)
    return result


def slow_normed(layer: torch.nn.Module, values: Tensor, offsets: Tensor, weights: Tensor, stride: int = 1) -> Tensor:
    """The convolution above, then group norm, for one image."""
    convolved = slow_convolution(
        values, offsets.flatten().tolist(), weights.flatten().tolist(), layer.conv.weight, stride
    )
    return F.group_norm(convolved[None], 16, layer.norm.weight, layer.norm.bias)[0]


def slow_enlarged(values: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with corners on corners, place by place."""
    rows, columns = values.shape[1:]
    result = values.new_zeros(len(values), height, width)
    for y in range(height):
        for x in range(width):
            source_y = y * (rows - 1) / (height - 1) if height > 1 else 0.0
            source_x = x * (columns - 1) / (width - 1) if width > 1 else 0.0
            result[:, y, x] = sampled(values, source_y, source_x)
    return result


def slow_block(block: DeformBlock, levels: list[Tensor]) -> list[Tensor]:
    """Both kinds of block as section 1 of the notes tells them, for one image."""
    own_sets = not isinstance(block, DyHeadBlock)
    fused = []
    for index, level in enumerate(levels):
        raw = F.conv2d(level[None], block.spatial_conv_offset.weight, block.spatial_conv_offset.bias, padding=1)[0]
        count = 3 if own_sets else 1
        sets = [
            (raw[18 * k : 18 * k + 18], raw[18 * count + 9 * k : 18 * count + 9 * k + 9].sigmoid())
            for k in range(count)
        ]
        mid, low, high = sets if own_sets else sets * 3
        terms = [slow_normed(block.spatial_conv_mid, level, *mid)]
        if index > 0:
            terms.append(slow_normed(block.spatial_conv_low, levels[index - 1], *low, stride=2))
        if index + 1 < len(levels):
            if block.compatible_offsets:
                small = slow_normed(block.spatial_conv_high, levels[index + 1], *high)
                terms.append(slow_enlarged(small, *level.shape[1:]))
            else:
                large = slow_enlarged(levels[index + 1], *level.shape[1:])
                terms.append(slow_normed(block.spatial_conv_high, large, *high))
        if own_sets:
            fused.append(sum(terms) / len(terms))
        else:
            gates = block.scale_attn_module[1]
            scaled = []
            for term in terms:
                gate = (gates.weight[0, :, 0, 0] @ term.mean((1, 2)) + gates.bias[0]).clamp(min=0)
                scaled.append(term * ((gate + 3) / 6).clamp(0, 1))
            fused.append(slow_dynamic_relu(block, sum(scaled) / len(scaled)))
    return fused


def slow_dynamic_relu(block: DyHeadBlock, values: Tensor) -> Tensor:
    """DyReLU, channel by channel."""
    first, second = block.task_attn_module.conv1["conv"], block.task_attn_module.conv2["conv"]
    hidden = (first.weight[:, :, 0, 0] @ values.mean((1, 2)) + first.bias).clamp(min=0)
    gates = ((second.weight[:, :, 0, 0] @ hidden + second.bias + 3) / 6).clamp(0, 1) - 0.5
    result = torch.empty_like(values)
    for c in range(CHANNELS):
        a1, b1, a2, b2 = (gates[part * CHANNELS + c] for part in range(4))
        result[c] = torch.maximum((2 * a1 + 1) * values[c] + b1, 2 * a2 * values[c] + b2)
    return result


@pytest.mark.parametrize("compatible", [True, False], ids=["as released", "enlarged first"])
@pytest.mark.parametrize("kind", [DeformBlock, DyHeadBlock])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@torch.no_grad()
def test_a_block_is_what_loops_over_cells_give(
    sizes: list[tuple[int, int]], kind: type[DeformBlock], compatible: bool
) -> None:
    block, levels = block_of(kind, compatible), levels_of(sizes)
    expected = slow_block(block, [level[0] for level in levels])
    for fused, slow in zip(block(levels), expected, strict=True):
        torch.testing.assert_close(fused[0], slow, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["deform", "dyhead"])
@torch.no_grad()
def test_images_of_a_batch_do_not_touch_each_other(kind: str) -> None:
    torch.manual_seed(0)
    fusion = Fusion(kind, CHANNELS).double()
    for block in fusion.dyhead_blocks:
        torch.nn.init.normal_(block.spatial_conv_offset.weight, std=0.2)
    levels = levels_of(SIZES["odd"], batch=3)
    together = fusion(levels)
    for image in range(3):
        alone = fusion([level[image : image + 1] for level in levels])
        for one, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_of_them[image], rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (5, 4), (97, 90)], ids=["one cell", "small", "more than one part"])
def test_the_way_without_gradients_gives_what_torchvision_gives(size: tuple[int, int], stride: int) -> None:
    layer = DeformConvNorm(CHANNELS * 2, stride).double()
    generator = torch.Generator().manual_seed(6)
    values = torch.randn(2, CHANNELS * 2, *size, generator=generator, dtype=torch.float64)
    reduced = [(side - 1) // stride + 1 for side in size]
    # Offsets of several cells: whole, between cells, on the border and far outside.
    offsets = torch.randn(2, 18, *reduced, generator=generator, dtype=torch.float64) * 3
    offsets[:, ::3] = offsets[:, ::3].round()
    offsets[:, 5] *= 1e12
    weights = torch.rand(2, 9, *reduced, generator=generator, dtype=torch.float64)
    expected = layer(values, offsets, weights)
    with torch.no_grad():
        torch.testing.assert_close(layer(values, offsets, weights), expected, rtol=0, atol=1e-11)
    assert expected.requires_grad


def test_reread_takes_the_first_numbers_of_each_image_whatever_they_meant() -> None:
    values = torch.arange(2 * 2 * 3 * 4).view(2, 2, 3, 4)
    assert reread(values, 2, 2).tolist() == [
        [[[0, 1], [2, 3]], [[4, 5], [6, 7]]],
        [[[24, 25], [26, 27]], [[28, 29], [30, 31]]],
    ]
    # Of an equal size nothing changes.
    assert torch.equal(reread(values, 3, 4), values)


@torch.no_grad()
def test_the_switch_makes_another_function() -> None:
    levels = [level.float() for level in levels_of(SIZES["odd"])]
    torch.manual_seed(0)
    on = Fusion("deform", CHANNELS, compatible_offsets=True)
    off = Fusion("deform", CHANNELS, compatible_offsets=False)
    off.load_state_dict(on.state_dict())
    # Fresh offsets are zero, yet to convolve and then enlarge is not to enlarge and then convolve.
    for one, other in zip(on(levels), off(levels), strict=True):
        assert float((one - other).abs().max()) > 1e-3


def test_fresh_offsets_are_zero() -> None:
    for kind in ("deform", "dyhead"):
        for block in Fusion(kind, CHANNELS).dyhead_blocks:
            assert not block.spatial_conv_offset.weight.any() and not block.spatial_conv_offset.bias.any()


def test_gradients_reach_everything_including_the_misread_offsets() -> None:
    torch.manual_seed(0)
    fusion = Fusion("dyhead", CHANNELS)
    levels = [level.float().requires_grad_() for level in levels_of(SIZES["odd"])]
    sum(level.square().sum() for level in fusion(levels)).backward()
    assert all(level.grad is not None and bool(level.grad.any()) for level in levels)
    assert all(bool(block.spatial_conv_offset.weight.grad.any()) for block in fusion.dyhead_blocks)


@pytest.mark.parametrize("sizes", [[(8, 8), (5, 4)], [(8, 8), (2, 2)], [(7, 7), (3, 3)]])
def test_levels_that_do_not_halve_are_refused(sizes: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="half the size of the one before"):
        Fusion("deform", CHANNELS)(levels_of(sizes))
