"""Swin: against loops over cells, against torchvision's where both must agree, and the names of mmdet."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from tests.masa.rebuild import read_manifest
from trackmill.models.backbones.swin import PatchMerging, Swin, SwinBlock


def in_double(module: nn.Module) -> nn.Module:
    """The module in double precision with weights that make every part count."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.double().eval()


def slow_attention(block: SwinBlock, tokens: Tensor) -> Tensor:
    """Attention of one map (H, W, C) as mmdet 3.3.0 has it, pair by pair of cells."""
    height, width, channels = tokens.shape
    window, shift = block.window, block.shift
    weights = block.attn["w_msa"]
    rows, columns = height + -height % window, width + -width % window
    padded = tokens.new_zeros(rows, columns, channels)
    padded[:height, :width] = F.layer_norm(tokens, (channels,), block.norm1.weight, block.norm1.bias)
    query, key, value = F.linear(padded, weights.qkv.weight, weights.qkv.bias).chunk(3, dim=-1)
    num_heads = weights.num_heads
    size = channels // num_heads

    def region(place: int, length: int) -> int:
        """Part of the shifted map: [0, -window), [-window, -shift), [-shift, end)."""
        return 0 if place < length - window else 1 if place < length - shift else 2

    def where(y: int, x: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Window, region and place in the window of a cell, after the shift."""
        y, x = (y - shift) % rows, (x - shift) % columns
        regions = (region(y, rows), region(x, columns)) if shift else (0, 0)
        return (y // window, x // window), regions, (y % window, x % window)

    def pair(one: tuple[int, int], other: tuple[int, int]) -> int:
        """Row of the bias table: sums of double steps, the second one counted from the end (the flip)."""
        step = 2 * window - 1
        mirrored = (window - 1 - other[0], window - 1 - other[1])
        return step * (one[0] + mirrored[0]) + one[1] + mirrored[1]

    cells = [(y, x) for y in range(rows) for x in range(columns)]
    result = tokens.new_zeros(rows, columns, channels)
    for y, x in cells:
        own_window, own_region, own_place = where(y, x)
        others = [cell for cell in cells if where(*cell)[0] == own_window]
        for head in range(num_heads):
            part = slice(head * size, head * size + size)
            logits = []
            for cell in others:
                _, other_region, other_place = where(*cell)
                logit = query[y, x, part] @ key[(*cell, part)] / size**0.5
                logit = logit + weights.relative_position_bias_table[pair(own_place, other_place), head]
                logits.append(logit - 100 * (own_region != other_region))
            shares = torch.stack(logits).softmax(0)
            result[y, x, part] = sum(share * value[(*cell, part)] for share, cell in zip(shares, others, strict=True))
    return F.linear(result, weights.proj.weight, weights.proj.bias)[:height, :width]


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("size", [(6, 6), (5, 4), (2, 3)], ids=["whole windows", "padded", "smaller than a window"])
@torch.no_grad()
def test_attention_is_what_pairs_of_cells_give(size: tuple[int, int], shift: int) -> None:
    block = in_double(SwinBlock(8, 2, 3, shift))
    tokens = torch.randn(2, *size, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    attended = block._attend(block.norm1(tokens))
    for image in range(2):
        torch.testing.assert_close(attended[image], slow_attention(block, tokens[image]), rtol=0, atol=1e-10)


@torch.no_grad()
def test_merging_is_an_unfold_channel_by_channel() -> None:
    merging = in_double(PatchMerging(3))
    tokens = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    maps = F.pad(tokens.permute(0, 3, 1, 2), (0, 1, 0, 1))
    unfolded = F.unfold(maps, 2, stride=2).transpose(1, 2)  # (B, places, 4 C)
    normed = F.layer_norm(unfolded, (12,), merging.norm.weight, merging.norm.bias)
    torch.testing.assert_close(merging(tokens).flatten(1, 2), normed @ merging.reduction.weight.T)


def original_name(name: str) -> str:
    """What the original code calls a tensor that mmdet calls `name`."""
    name = name.replace("patch_embed.projection.", "patch_embed.proj.").replace("stages.", "layers.")
    name = name.replace("attn.w_msa.", "attn.")
    return name.replace("ffn.layers.0.0.", "mlp.fc1.").replace("ffn.layers.1.", "mlp.fc2.")


def original_values(name: str, values: Tensor) -> Tensor:
    """mmdet's merging weights in the original order: the four cells one after another, row running fastest."""
    if "downsample" not in name:
        return values
    cells = values.unflatten(-1, (-1, 2, 2))  # (..., C, row, column)
    return cells.movedim(-1, -3).movedim(-1, -2).flatten(-3)  # (..., column, row, C)


@pytest.mark.parametrize("size", [(64, 96), (75, 90)], ids=["even", "odd"])
@torch.no_grad()
def test_large_maps_come_out_as_from_torchvision(size: tuple[int, int]) -> None:
    # torchvision does not shift maps that are no larger than a window; all of these are larger.
    settings = {"depths": (2, 2, 2), "heads": (2, 4, 8)}
    ours = in_double(Swin(3, width=8, **settings))
    theirs = SwinTransformer([4, 4], 8, list(settings["depths"]), list(settings["heads"]), [3, 3]).double().eval()
    state = theirs.state_dict()
    names = {"patch_embed.projection": "features.0.0", "patch_embed.norm": "features.0.2"}
    for stage in range(3):
        names |= {f"stages.{stage}.downsample": f"features.{2 * stage + 2}"}
        for block in range(2):
            names |= {f"stages.{stage}.blocks.{block}": f"features.{2 * stage + 1}.{block}"}
    for name, values in ours.state_dict().items():
        begin = next((each for each in names if name.startswith(each)), None)
        if begin is None or name.endswith("relative_position_index"):
            continue
        name_there = names[begin] + name.removeprefix(begin)
        name_there = name_there.replace("attn.w_msa.", "attn.").replace("ffn.layers.0.0.", "mlp.0.")
        name_there = name_there.replace("ffn.layers.1.", "mlp.3.")
        state[name_there] = original_values(name, values)
    theirs.load_state_dict(state)

    batch = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = ours(F.pad(batch, (0, -size[1] % 4, 0, -size[0] % 4)))
    tokens = F.pad(batch, (0, -size[1] % 4, 0, -size[0] % 4))
    expected = []
    for index, part in enumerate(theirs.features):
        tokens = part(tokens)
        if index in (3, 5):
            norm = ours.get_submodule(f"norm{index // 2}")
            expected.append(norm(tokens).permute(0, 3, 1, 2))
    assert len(found) == 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    for one, other in zip(ours(batch), found, strict=True):
        assert torch.equal(one, other)  # sides that are no multiple of a patch are padded inside


@torch.no_grad()
def test_maps_of_swin_b_have_the_channels_and_strides_the_adapter_expects() -> None:
    maps = Swin(7).eval()(torch.zeros(1, 3, 64, 96))
    assert [tuple(each.shape) for each in maps] == [(1, 256, 8, 12), (1, 512, 4, 6), (1, 1024, 2, 3)]


def test_names_and_shapes_are_the_original_ones_renamed() -> None:
    prefix = "backbone.bottom_up."
    official = {
        entry["name"].removeprefix(prefix): tuple(entry["shape"])
        for entry in read_manifest("detic_swinb")["entries"]
        if entry["name"].startswith(prefix)
    }
    ours = {original_name(name): tuple(values.shape) for name, values in Swin(7).state_dict().items()}
    assert ours == official
