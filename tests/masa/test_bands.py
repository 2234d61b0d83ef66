"""The band head of small models: what it starts as, what it learns, how it is told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

import trackmill.models.masa
from trackmill.models.layers.colours import CHANNELS, colour_map
from trackmill.models.masa.band_layout import COLOUR_BANDS
from trackmill.models.masa.bands import TEMPERATURE, BandHead
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS, recognise

BOXES = torch.tensor([[4.0, 6.0, 50.5, 70.25], [-9.0, 3.0, 100.0, 75.0], [20.0, 20.0, 28.0, 30.0]])


@pytest.fixture(scope="module")
def model() -> Masa:
    return trackmill.models.masa.load("masa_lite0", seed=2)


def picture() -> Tensor:
    return torch.rand(1, 3, 80, 96, generator=torch.Generator().manual_seed(0)) * 255


def test_untrained_it_is_the_plain_feature(model: Masa) -> None:
    (embeddings,) = model.embed(picture(), [BOXES])
    with torch.no_grad():
        maps = model.backbone_maps(model.prepare(picture()))
    parts = []
    for each, stride in zip(maps, (8, 16, 32)):
        cells = roi_align(each, [BOXES], (6, 3), 1 / stride, 2, aligned=True)
        rows = torch.stack([cells[:, :, band].mean(2) for band in range(6)], dim=1)  # (N, 6, C)
        parts.append(rows / rows.pow(2).sum((1, 2), keepdim=True).sqrt())
    plain = torch.cat(parts, dim=2).flatten(1)
    torch.testing.assert_close(F.cosine_similarity(embeddings, plain), torch.ones(3))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.full((3,), TEMPERATURE**-0.5))


def test_it_needs_no_adapter(model: Masa) -> None:
    with torch.no_grad():
        whole = model.embed_levels(model.features(picture()), [BOXES])[0]
        short = model.embed_levels(model.track_features(picture()), [BOXES])[0]
    torch.testing.assert_close(whole, short)
    assert len(model.track_features(picture())) == 3


def test_proposals_come_from_the_adapter_all_the_same(model: Masa) -> None:
    with torch.no_grad():
        logits, deltas = model.rpn(model.features(picture()))
    assert len(logits) == len(deltas) == 3 and logits[0].shape[1] == 3
    boxes, scores = model.propose(picture())[0]
    assert boxes.shape == (len(scores), 4)


def test_its_vertical_order_counts() -> None:
    head = BandHead((4,), (8,))
    level = torch.rand(1, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    box = torch.tensor([[0.0, 0.0, 96.0, 96.0]])
    upright = head(head.pool([level], [box]))
    mirrored = head(head.pool([level.flip(3)], [box]))
    upside_down = head(head.pool([level.flip(2)], [box]))
    torch.testing.assert_close(upright, mirrored)
    assert F.cosine_similarity(upright, upside_down) < 0.999


def test_mean_mix_and_gain_all_learn() -> None:
    head = BandHead((4, 6), (8, 16))
    levels = [torch.rand(1, 4, 12, 12), torch.rand(1, 6, 6, 6)]
    head(head.pool(levels, [torch.tensor([[0.0, 0.0, 90.0, 60.0], [5.0, 5.0, 40.0, 80.0]])]))[:, 0].sum().backward()
    assert {name for name, values in head.named_parameters() if bool(values.grad.abs().sum())} == {
        "mean",
        "mix.weight",
        "gain",
    }


def test_a_variant_whose_length_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="embed_channels must be 2832"):
        trackmill.models.masa.load(replace(VARIANTS["masa_lite0"], embed_channels=256))


# masa_lite0_colour: thinner bands of the middle, and colours.


def test_colours_are_shares_of_soft_bins() -> None:
    gray = torch.full((1, 3, 8, 8), 120.0)
    gray[:, :, :, 4:] = torch.tensor([200.0, 30.0, 40.0]).view(3, 1, 1)
    shares = colour_map(gray)
    assert shares.shape == (1, CHANNELS, 2, 2)
    torch.testing.assert_close(shares.sum(1), torch.ones(1, 2, 2))
    # Gray 120 is the middle one of five; without hue it lies between the two middle bins of either axis.
    hues = shares[0, :, 0, 0].view(5, 4, 4)
    torch.testing.assert_close(hues[2, 1:3, 1:3], torch.full((2, 2), 0.25))
    red = shares[0, :, 0, 1].view(5, 4, 4)
    assert red[:, 3].sum() == pytest.approx(1), "red minus green is beyond the last bin, and counts for it"


def test_a_little_more_light_moves_colours_a_little() -> None:
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 200 + 20
    moved = (colour_map(picture + 4) - colour_map(picture)).abs().sum(1)
    assert 0 < moved.max() <= 2 * 4 / 55 + 1e-4, "four of the 55 levels between two bins"


@pytest.fixture(scope="module")
def coloured() -> Masa:
    return trackmill.models.masa.load("masa_lite0_colour", seed=2)


def test_the_colour_variant_pools_the_middle_and_weighs_its_maps(coloured: Masa) -> None:
    (embeddings,) = coloured.embed(picture(), [BOXES])
    with torch.no_grad():
        maps = coloured.track_features(picture())
    torch.testing.assert_close(maps[3], colour_map(F.pad(picture(), (0, 0, 0, 16), value=127.0)), atol=1e-4, rtol=0)
    sixth = (BOXES[:, 2] - BOXES[:, 0]) / 6
    middle = torch.stack([BOXES[:, 0] + sixth, BOXES[:, 1], BOXES[:, 2] - sixth, BOXES[:, 3]], dim=1)
    parts = []
    for each, stride, weight in zip(maps, (8, 16, 32, 4), (1.0, 1.0, 0.7, 1.0), strict=True):
        rows = roi_align(each, [middle], (12, 4), 1 / stride, 1, aligned=True).mean(3).transpose(1, 2)  # (N, 12, C)
        rows = rows.sqrt() if stride == 4 else rows
        parts.append(weight * rows / rows.pow(2).sum((1, 2), keepdim=True).sqrt())
    plain = torch.cat(parts, dim=2).flatten(1)
    torch.testing.assert_close(F.cosine_similarity(embeddings, plain), torch.ones(3))


def test_background_beside_an_object_does_not_count(coloured: Masa) -> None:
    """What lies in the outer sixths of the box changes nothing of a map's part."""
    head = BandHead((4,), (8,), replace(COLOUR_BANDS, colours=0.0))
    level = torch.rand(1, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    other = level.clone()
    other[..., 0], other[..., -1] = 0, 9
    box = torch.tensor([[0.0, 0.0, 96.0, 96.0]])
    torch.testing.assert_close(head(head.pool([level], [box])), head(head.pool([other], [box])))


def test_the_small_variants_are_told_apart_by_their_head(model: Masa, coloured: Masa) -> None:
    for each in (model, coloured):
        assert recognise(each.state_dict()) == each.variant.name
    with pytest.raises(ValueError, match="look like masa_lite0, not masa_lite0_colour"):
        trackmill.models.masa.load("masa_lite0_colour", model.state_dict())
