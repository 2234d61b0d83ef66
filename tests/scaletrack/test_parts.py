"""Each part of the network by itself: against a plain way to compute it, and at values that tell readings apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.scaletrack.small import SMALL, clip, close, small_model, some_boxes
from trackmill.models.layers.colours import colour_map
from trackmill.models.layers.sine import sine
from trackmill.models.scaletrack.area import Area
from trackmill.models.scaletrack.decoder import Modulation, window_rows
from trackmill.models.scaletrack.encoder import MaskedGroupNorm
from trackmill.models.scaletrack.fusion import History, TemporalFusion, sample_volume
from trackmill.models.scaletrack.pooling import AdaptiveSampling, AttentionPooling, SpatialPooling, pooled_regions
from trackmill.models.scaletrack.positions import cell_positions


def drawn(module: torch.nn.Module, seed: int = 0, by: float = 0.5) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn_like(parameter)


def test_attention_pooling() -> None:
    """Eq. 5 as loops; the weights sum to 1 over the cells of a region, so a constant region gives the constant."""
    pooling = AttentionPooling(6)
    drawn(pooling)
    regions = torch.randn(3, 6, 4, 5)
    with torch.no_grad():
        found = pooling(regions)
        for n in range(3):
            scores = torch.stack([pooling.scores(regions[n, :, y, x]) for y in range(4) for x in range(5)]).flatten()
            cells = torch.stack([regions[n, :, y, x] for y in range(4) for x in range(5)])
            close(found[n], (scores.exp()[:, None] * cells).sum(0) / scores.exp().sum(), atol=1e-5)
        constant = torch.randn(2, 6, 1, 1)
        close(pooling(constant.expand(-1, -1, 7, 7)), constant[:, :, 0, 0])


def test_adaptive_sampling() -> None:
    """K points within the box, one in each quarter at first; what is there is read and averaged."""
    sampling = AdaptiveSampling(5, 4, spread=0.5)
    regions = torch.randn(3, 5, 7, 7)
    with torch.no_grad():
        starts = sampling.locations(regions)
        assert starts.shape == (3, 4, 2)
        corners = {(round(x, 5), round(y, 5)) for x, y in starts[0].tolist()}
        assert corners == {(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)}
        # -0.5 and 0.5 of seven cells lie a quarter of a cell outside the centres of the second and the sixth one.
        column = torch.arange(7.0).expand(1, 5, 7, 7) ** 2
        middle = 0.75 * 1 + 0.25 * 4, 0.75 * 25 + 0.25 * 16
        close(sampling(column), torch.full((1, 5), sum(middle) / 2), atol=1e-5)
        drawn(sampling, by=3.0)
        moved = sampling.locations(regions * 100)
        assert moved.abs().max() <= 1
        assert not torch.allclose(moved[0], moved[1], atol=1e-2)
        close(sampling(torch.full((2, 5, 7, 7), 3.5)), torch.full((2, 5), 3.5))  # also at the edges of the box


def test_adaptive_points_get_different_gradients() -> None:
    sampling = AdaptiveSampling(5, 6, spread=0.5)
    torch.manual_seed(1)
    sampling(torch.randn(4, 5, 7, 7)).square().sum().backward()
    gradient = sampling.offsets.bias.grad
    assert gradient is not None
    assert len({tuple(pair) for pair in gradient.view(6, 2).round(decimals=4).tolist()}) == 6


def test_spatial_pooling() -> None:
    """Eq. 6: both poolings side by side through a linear layer."""
    pooling = SpatialPooling(SMALL)
    drawn(pooling)
    regions = torch.randn(3, 32, 7, 7)
    with torch.no_grad():
        parts = torch.cat([pooling.attention(regions), pooling.sampling(regions)], dim=1)
        close(pooling(regions), parts @ pooling.fuse.weight.T + pooling.fuse.bias, atol=1e-5)


def test_pooled_regions() -> None:
    """Half-pixel aligned: a map that holds its own x gives the x of each cell of a box."""
    columns = torch.arange(12.0).expand(2, 1, 12, 12)
    maps = torch.stack([columns[0], columns[0] * 10])
    boxes = torch.tensor([[16.0, 16.0, 72.0, 72.0], [16.0, 16.0, 72.0, 72.0]])
    regions = pooled_regions(maps, boxes, torch.tensor([1, 0]), 8, SMALL)
    expected = (torch.arange(7.0) + 2).expand(7, 7)  # a cell of the box is a cell of the map
    close(regions[1, 0], expected, atol=1e-5)
    close(regions[0, 0], expected * 10, atol=1e-4)


def volume_case(window: int = 4, heads: int = 2, points: int = 3) -> tuple[History, Tensor, Tensor]:
    torch.manual_seed(0)
    values = torch.randn(6, 5 * 7, heads * 3)
    rows = torch.tensor([[0, 0, 1, 2], [2, 3, 4, 5], [5, 1, 3, 3]])[:, :window]
    locations = torch.rand(3, heads, points, 3) * 1.6 - 0.3  # x and y also beyond the map
    locations[..., 0] = torch.rand(3, heads, points) * 2 - 1
    return History(values, (5, 7), rows), locations, torch.rand(3, heads, points).softmax(-1)


@pytest.mark.parametrize("window", [4, 1])
def test_sampling_in_time(window: int) -> None:
    """As torch's trilinear sampling of the window as a volume, with gradients."""
    history, locations, weights = volume_case(window)
    values = history.values.clone().requires_grad_()
    located, shares = locations.clone().requires_grad_(), weights.clone().requires_grad_()
    found = sample_volume(History(values, history.shape, history.rows), located, shares)
    found.square().sum().backward()

    again, moved, weighted = (each.detach().clone().requires_grad_() for each in (values, located, shares))
    parts = []
    for n in range(3):
        volume = again[history.rows[n]].view(window, 5, 7, 2, 3).permute(3, 4, 0, 1, 2)  # (heads, C, window, H, W)
        t, x, y = moved[n].unbind(-1)
        # torch puts the ends of the time axis at the edges of the frames, we at their middle.
        grid = torch.stack([2 * x - 1, 2 * y - 1, t * (window - 1) / window], dim=-1)[:, None, None]
        read = F.grid_sample(volume, grid, padding_mode="border", align_corners=False)[:, :, 0, 0]  # (heads, C, P)
        parts.append((read * weighted[n][:, None]).sum(-1).flatten())
    expected = torch.stack(parts)
    expected.square().sum().backward()
    close(found, expected, atol=1e-5)
    for one, other in ((values, again), (located, moved), (shares, weighted)):
        assert one.grad is not None
        assert other.grad is not None
        close(one.grad, other.grad, atol=1e-4)


def test_time_runs_from_the_oldest_to_the_newest_frame() -> None:
    frames = torch.arange(4.0).view(4, 1, 1).expand(4, 6, 2).contiguous()
    history = History(frames, (2, 3), torch.tensor([[0, 1, 2, 3]]))
    for t, expected in ((-1.0, 0.0), (-1 / 3, 1.0), (0.0, 1.5), (1.0, 3.0)):
        location = torch.tensor([t, 0.4, 0.6]).view(1, 1, 1, 3)
        found = sample_volume(history, location, torch.ones(1, 1, 1))
        close(found, torch.full((1, 2), expected), atol=1e-5)


def test_fusion_reads_within_a_size_of_the_box() -> None:
    fusion = TemporalFusion(replace(SMALL, temporal_reach=1.0))
    drawn(fusion, by=5.0)
    content, boxes = torch.randn(40, 32), torch.tensor([0.5, 0.4, 0.2, 0.1]).expand(40, 4)
    with torch.no_grad():
        locations = fusion.locations(content, boxes)
    assert locations.shape == (40, 4, 2, 3)
    lowest, highest = locations.flatten(0, 2).amin(0), locations.flatten(0, 2).amax(0)
    close(lowest, torch.tensor([-1.0, 0.3, 0.3]), atol=0.01)
    close(highest, torch.tensor([1.0, 0.7, 0.5]), atol=0.01)


def test_fusion_starts_spread_out() -> None:
    """Points of a head begin at different times, inside of the box; heads look in different directions."""
    fusion = TemporalFusion(replace(SMALL, temporal_points=4))
    box = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    with torch.no_grad():
        locations = fusion.locations(torch.randn(1, 32), box)[0]
    close(locations[:, :, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75]).expand(4, 4))
    assert len({tuple(each) for each in locations[..., 1:].flatten(0, 1).round(decimals=4).tolist()}) == 16
    assert ((locations[..., 1:] - 0.5).abs() <= 0.1 + 1e-6).all()


def test_modulation() -> None:
    """Eq. 8 head by head."""
    modulation = Modulation(6, heads=3)
    drawn(modulation)
    content = torch.randn(4, 6)
    with torch.no_grad():
        expected = torch.zeros(4, 6)
        for weight in modulation.gates.weight.view(3, 6, 6):
            expected += torch.sigmoid(content @ weight.T) * content / 3
        close(modulation(content), expected)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (0, [0, 0, 0]),  # the first frame of the clip sees itself
        (1, [0, 0, 0]),
        (2, [0, 0, 1]),
        (4, [1, 2, 3]),
        (5, [5, 5, 5]),  # the first frame of the next clip
        (7, [5, 5, 6]),
    ],
)
def test_window_rows(frame: int, expected: list[int]) -> None:
    assert window_rows(torch.tensor([frame]), num_frames=5, window=3, follows=False).tolist() == [expected]


def test_window_rows_that_follow() -> None:
    """Rows 0 to 2 of the table are the frames before."""
    rows = window_rows(torch.tensor([0, 2]), num_frames=4, window=3, follows=True)
    assert rows.tolist() == [[0, 1, 2], [2, 3, 4]]


def test_masked_group_norm() -> None:
    norm = MaskedGroupNorm(2, 6)
    drawn(norm)
    values = torch.randn(2, 6, 20)
    padding = torch.zeros(2, 20, dtype=torch.bool)
    padding[1, 13:] = True
    with torch.no_grad():
        found = norm(values, padding)
        close(found[:1], norm(values[:1]), atol=1e-5)
        close(found[1:, :, :13], norm(values[1:, :, :13]), atol=1e-5)


def test_area() -> None:
    area = Area(32, 64, torch.tensor([[32, 64], [17, 8]]))
    cells = area.cells(8)
    assert cells is not None
    assert cells.tolist() == [[4, 8], [3, 1]]
    padding = area.padding((4, 8), 8)
    assert padding is not None
    assert padding.sum(1).tolist() == [0, 32 - 3]
    tokens = torch.arange(64.0).view(2, 32, 1)
    extended = area.extended(tokens, (4, 8), 8).view(2, 4, 8)
    assert extended[0].equal(tokens[0].view(4, 8))
    assert extended[1, :, 5].tolist() == [32, 40, 48, 48]
    clipped = area.clip(torch.tensor([[-5.0, 3, 70, 40], [1, 2, 3, 4], [20, 20, 30, 30]]), torch.tensor([0, 1, 1]))
    assert clipped.tolist() == [[0, 3, 64, 32], [1, 2, 3, 4], [8, 17, 8, 17]]
    close(area.corner(torch.tensor([1]), torch.float32), torch.tensor([[8.0, 17, 8, 17]]))
    whole = Area(32, 64)
    assert whole.cells(8) is None
    assert whole.padding((4, 8), 8) is None
    assert whole.corner(torch.tensor([0]), torch.float32).tolist() == [64, 32, 64, 32]


def test_positions() -> None:
    """Two sines and cosines of each number; cells count from the picture, not from the padding."""
    angles = torch.tensor([0.25, 0.25 / 10000**0.5]) * 2 * torch.pi
    found = sine(torch.tensor([0.25]), 4)
    close(found, torch.stack([angles.sin(), angles.cos()], dim=1).flatten())
    centres = cell_positions((2, 4), torch.tensor([[2, 3]]), found)
    close(centres[0, 6], torch.tensor([0.75, 2.5 / 3]))
    close(cell_positions((2, 4), None, found)[0, 6], torch.tensor([0.75, 2.5 / 4]))


def names(**changes: object) -> set[str]:
    return {name for name, _ in small_model(**changes).named_parameters()}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"temporal": False}, ".temporal."),
        ({"cross_attention": False}, ".cross_attention."),
        ({"modulation": False}, ".modulation."),
        ({"spatial": False}, ".spatial."),
        ({"head": False}, "heads."),
        ({"decoder_layers": 1}, ".1."),
    ],
    ids=str,
)
def test_a_switch_removes_its_parameters_only(changes: dict[str, object], part: str) -> None:
    whole = names()
    removed = whole - names(**changes)
    if part == ".1.":
        assert removed == {name for name in whole if name.startswith(("decoder.layers.1.", "heads.1."))}
    else:
        assert removed == {name for name in whole if part in name or name.startswith(part)}
    assert removed
    assert not names(**changes) - whole


def test_switches_of_the_large_parts() -> None:
    whole = names()
    assert whole - names(encoder=False) == {
        name for name in whole if name.startswith(("encoder.layers.", "encoder.level_embedding"))
    }
    assert whole - names(decoder=False) == {name for name in whole if name.startswith(("decoder.", "heads.1."))}
    assert names(encoder=False, decoder=False, head=False) == {name for name in whole if name.startswith("backbone.")}
    assert names(bands=True) - whole == {"band_weight", "band_head.mean", "band_head.mix.weight", "band_head.gain"}
    shared = {name for name in whole if name.startswith(("encoder.layers.1.", "encoder.layers.2."))}
    assert whole - names(shared_encoder=True) == shared


def test_row_a_needs_no_training() -> None:
    """Table 7 (a): the mean of the pooled box on the backbone's last map."""
    model = small_model(encoder=False, decoder=False, head=False)
    frames, boxes = clip(2, 64, 64), some_boxes([2, 1], 64, 64)
    with torch.no_grad():
        found = model(frames, boxes)
        maps = model.backbone(model.backbone.normalise(frames))
        regions = pooled_regions(maps[-1], torch.cat(boxes), torch.tensor([0, 0, 1]), 8, SMALL)
    close(torch.cat(found), F.normalize(regions.mean((2, 3)), dim=1), atol=1e-5)
    assert model.dimensions == 12


@pytest.mark.parametrize(
    ("row", "layers"),
    [
        ({"encoder": False, "decoder": False, "head": False}, 1),
        ({"decoder": False}, 1),
        ({"temporal": False, "cross_attention": False}, 2),
        ({"temporal": False}, 2),
        ({}, 2),
    ],
)
def test_rows_of_table_7(row: dict[str, object], layers: int) -> None:
    model = small_model(**row)
    with torch.no_grad():
        out = model.encode(clip(2, 64, 64)[None], torch.tensor([[3.0, 3, 40, 50]]), torch.tensor([1]))
    assert out.shape == (layers, 1, model.dimensions)
    assert model.variant.num_layers == layers


def test_last_level_only() -> None:
    """Table 14: boxes are pooled from the same level, and nothing else is read."""
    model = small_model(levels=(-1,))
    assert len(model.encoder.projections) == 1  # type: ignore[union-attr]
    assert model.decoder.layers[0].cross_attention.attention.levels == 1  # type: ignore[union-attr]


def test_bands_lead_at_first() -> None:
    """Untrained, the small model's embedding ranks boxes as the backbone's plain feature does; both parts can learn."""
    model = small_model(bands=True)
    with torch.no_grad():
        assert model.band_head is not None
        for parameter in (model.band_head.mean, model.band_head.mix.weight, model.band_head.gain, model.band_weight):
            parameter.zero_()
        torch.nn.init.eye_(model.band_head.mix.weight)
        model.band_head.gain.fill_(1)
        model.band_weight.fill_(SMALL.bands_start)
    frames, boxes = clip(2, 64, 64), some_boxes([20, 20], 64, 64)
    with torch.no_grad():
        found = torch.cat(model(frames, boxes))
        maps = [*model.backbone(model.backbone.normalise(frames)), colour_map(frames * 255)]
        plain = F.normalize(model.band_head.pool(maps, boxes).flatten(1), dim=1)
    assert found.shape == (40, model.dimensions)
    assert model.dimensions == plain.shape[1] + SMALL.dimensions
    above = torch.triu(torch.ones(40, 40), 1) > 0
    alike = torch.corrcoef(torch.stack([(found @ found.T)[above], (plain @ plain.T)[above]]))[0, 1]
    assert alike > 0.99
    close(found[:, plain.shape[1] :].norm(dim=1), torch.full((40,), SMALL.bands_start), atol=0.01)
    model(frames, boxes)[1][0, :3].sum().backward()
    for name in ("band_weight", "band_head.mix.weight", "heads.1.weight", "decoder.layers.0.norm.weight"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().sum() > 0, name
