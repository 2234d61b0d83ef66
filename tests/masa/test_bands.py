"""The band head of small models: what it starts as, what it learns, how it is told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

import trackmill.models.masa
from trackmill.models.masa.bands import TEMPERATURE, BandHead
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS

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
