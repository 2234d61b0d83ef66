"""The heads: which level a region comes from, how it is pooled, and networks that bear the official names."""

import math

import numpy as np
import pytest
import torch

from tests.masa.rebuild import read_manifest
from trackmill.models.masa.heads import RoiHead, RpnHead, TrackHead, roi_align_levels, roi_levels


def test_level_follows_the_root_of_the_area() -> None:
    sides = [(0, 0), (1, 1), (56, 56), (111, 111), (112, 112), (28, 448), (224, 224), (448, 448), (5000, 5000)]
    boxes = torch.tensor([[10.0, 20.0, 10.0 + width, 20.0 + height] for width, height in sides])
    assert roi_levels(boxes, 4).tolist() == [0, 0, 0, 0, 1, 1, 2, 3, 3]
    assert roi_levels(boxes, 3).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]


def test_level_changes_a_hair_below_the_power_of_two() -> None:
    """The released rule adds 1e-6 after dividing by 56."""
    sides = torch.tensor([111.9999, 111.99997, 112.0])
    boxes = torch.stack([torch.zeros(3), torch.zeros(3), sides, sides], dim=1)
    assert roi_levels(boxes, 4).tolist() == [0, 1, 1]


def test_an_inverted_box_counts_as_empty() -> None:
    assert roi_levels(torch.tensor([[300.0, 0.0, 0.0, 300.0], [300.0, 300.0, 0.0, 0.0]]), 4).tolist() == [0, 0]


def _slow_sample(level: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear value (C,) at a point of a map (C, H, W); 0 beyond one cell outside."""
    height, width = level.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(len(level))
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down = y - top if top < height - 1 else 0.0
    over = x - left if left < width - 1 else 0.0
    upper = level[:, top, left] * (1 - over) + level[:, top, right] * over
    lower = level[:, bottom, left] * (1 - over) + level[:, bottom, right] * over
    return upper * (1 - down) + lower * down


def _slow_pool(level: np.ndarray, stride: int, box: list[float]) -> np.ndarray:
    """RoIAlign of one box, (C, 7, 7), cell by cell and sample by sample."""
    x0, y0, x1, y1 = (value / stride - 0.5 for value in box)
    cell_height, cell_width = (y1 - y0) / 7, (x1 - x0) / 7
    down, across = math.ceil((y1 - y0) / 7), math.ceil((x1 - x0) / 7)
    pooled = np.zeros((len(level), 7, 7))
    for row in range(7):
        for column in range(7):
            for i in range(down):
                for j in range(across):
                    y = y0 + (row + (i + 0.5) / down) * cell_height
                    x = x0 + (column + (j + 0.5) / across) * cell_width
                    pooled[:, row, column] += _slow_sample(level, y, x) / (down * across)
    return pooled


def _levels(batch: int = 2, channels: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(batch, channels, 64 // size, 96 // size, generator=generator) for size in (1, 2, 4)]


def test_pooling_agrees_with_a_slow_transcription() -> None:
    levels, strides = _levels(), (4, 8, 16)
    boxes = [
        torch.tensor([[3.0, 5.0, 44.0, 30.0], [100.0, 20.0, 300.0, 250.0], [-20.0, -9.0, 31.5, 60.0]]),
        torch.tensor([[0.0, 0.0, 384.0, 256.0], [370.0, 200.0, 420.0, 290.0], [50.25, 60.5, 51.0, 61.75]]),
    ]
    pooled = roi_align_levels(levels, strides, boxes)
    chosen = roi_levels(torch.cat(boxes), 3).tolist()
    assert sorted(set(chosen)) == [0, 1, 2]
    for index, (level, box) in enumerate(zip(chosen, torch.cat(boxes).tolist())):
        expected = _slow_pool(levels[level][index // 3].numpy().astype(float), strides[level], box)
        np.testing.assert_allclose(pooled[index].numpy(), expected, atol=2e-5)


def test_images_without_boxes_leave_the_others_alone() -> None:
    levels, strides = _levels(batch=3), (4, 8, 16)
    box = torch.tensor([[3.0, 5.0, 44.0, 30.0]])
    none = torch.zeros(0, 4)
    alone = roi_align_levels([level[1:2] for level in levels], strides, [box])
    assert torch.equal(roi_align_levels(levels, strides, [none, box, none]), alone)
    assert roi_align_levels(levels, strides, [none, none, none]).shape == (0, 3, 7, 7)


def test_half_precision_maps_keep_whole_coordinates() -> None:
    """In half precision 1001.3 would become 1001.5, far beyond the rounding of the maps themselves."""
    ramp = torch.arange(256.0)[None, None, None].expand(1, 1, 16, 256) / 256
    box = torch.tensor([[1001.3, 4.0, 1009.3, 12.0]])
    exact = roi_align_levels([ramp], (4,), [box])
    half = roi_align_levels([ramp.half()], (4,), [box])
    assert half.dtype == torch.float16
    assert (half.float() - exact).abs().max() < 5e-4


def test_pooling_passes_gradients_to_every_level() -> None:
    levels = [level.requires_grad_() for level in _levels(batch=1)]
    boxes = torch.tensor([[3.0, 5.0, 44.0, 30.0], [0.0, 0.0, 150.0, 140.0], [0.0, 0.0, 384.0, 256.0]])
    roi_align_levels(levels, (4, 8, 16), [boxes]).sum().backward()
    for level in levels:
        assert level.grad is not None and level.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["masa_r50", "masa_sam_vitb"])
def test_names_and_shapes_are_the_official_ones(name: str) -> None:
    heads = {
        "rpn_head.": RpnHead(256),
        "roi_head.": RoiHead(256, convs=4 if name == "masa_r50" else 0),
        "track_head.": TrackHead(256),
    }
    for prefix, head in heads.items():
        official = {
            entry["name"]: tuple(entry["shape"])
            for entry in read_manifest(name)["entries"]
            if entry["name"].startswith(prefix)
        }
        assert {prefix + key: tuple(value.shape) for key, value in head.state_dict().items()} == official


def test_names_of_small_heads() -> None:
    assert set(RoiHead(32, convs=0, hidden=8).state_dict()) == {
        f"bbox_head.{layer}.{kind}"
        for layer in ("shared_fcs.0", "shared_fcs.1", "fc_cls", "fc_reg")
        for kind in ("weight", "bias")
    }
    names = set(TrackHead(32, hidden=8, dimensions=4).state_dict())
    assert "embed_head.convs.3.gn.weight" in names and "embed_head.convs.3.conv.bias" not in names
    names = set(RoiHead(32, convs=4, hidden=8).state_dict())
    assert "bbox_head.shared_convs.0.bn.running_mean" in names and "bbox_head.shared_fcs.1.weight" not in names


def test_outputs_have_the_stated_shapes() -> None:
    levels = [torch.randn(2, 32, 5, 7), torch.randn(2, 32, 3, 4)]
    logits, deltas = RpnHead(32)(levels)
    assert [tuple(each.shape) for each in logits] == [(2, 3, 5, 7), (2, 3, 3, 4)]
    assert [tuple(each.shape) for each in deltas] == [(2, 12, 5, 7), (2, 12, 3, 4)]
    for regions in (torch.randn(6, 32, 7, 7), torch.zeros(0, 32, 7, 7)):
        for convs in (0, 4):
            scores, moves = RoiHead(32, convs=convs, hidden=8)(regions)
            assert scores.shape == (len(regions), 2) and moves.shape == (len(regions), 4)
        assert TrackHead(32, hidden=8, dimensions=5)(regions).shape == (len(regions), 5)


def test_an_embedding_does_not_depend_on_its_neighbours() -> None:
    head = TrackHead(32, hidden=16, dimensions=8).eval()
    regions = torch.randn(5, 32, 7, 7)
    together, alone = head(regions), torch.cat([head(region[None]) for region in regions])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    # Not normalised: twice as much in the last layer is twice as much in the embedding.
    with torch.no_grad():
        head.embed_head.fc_embed.weight.mul_(2)
    torch.testing.assert_close(head(regions), 2 * together)


def test_fresh_weights_are_drawn_as_in_the_released_configuration() -> None:
    torch.manual_seed(0)
    rpn, roi, track = RpnHead(64), RoiHead(64, convs=4), TrackHead(64)
    for layer, deviation in (
        (rpn.rpn_conv, 0.01),
        (roi.bbox_head.fc_cls, 0.01),
        (roi.bbox_head.fc_reg, 0.001),
        (track.embed_head.fc_embed, 0.01),
        (roi.bbox_head.shared_convs[0].conv, math.sqrt(2 / (64 * 9))),
        (track.embed_head.fcs[0], math.sqrt(2 / (64 * 49 + 1024))),
    ):
        assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.1)
        assert layer.bias is None or not layer.bias.detach().any()
