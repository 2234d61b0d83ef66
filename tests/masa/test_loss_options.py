"""What is ours of the losses: negatives of the whole batch, nested boxes left out, both directions, no detection."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trackmill.models.masa.losses import LossSettings, Targets, masa_losses
from trackmill.models.masa.losses.auxiliary import margin_loss
from trackmill.models.masa.losses.contrastive import paper_contrast, released_contrast
from trackmill.models.masa.losses.pairing import ContrastPairs, ViewSamples, pair_telemetry, pair_views
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS

BOXES = torch.tensor([[10.0, 10.0, 60.0, 70.0], [12.0, 12.0, 50.0, 60.0], [70.0, 20.0, 120.0, 90.0]])
"""The second lies within the first (IoU 0.61)."""


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=_seeded(seed))


@pytest.mark.parametrize("loss", [released_contrast, paper_contrast, margin_loss])
def test_ignored_pairs_count_as_if_they_were_not_there(loss) -> None:
    key, ref = _random(4, 8), _random(9, 8, seed=1)
    targets = torch.zeros(4, 9, dtype=torch.bool)
    targets[range(4), range(4)] = True
    ignored = torch.zeros_like(targets)
    ignored[:, 6:] = True
    assert float(loss(key, ref, targets, ignored)) == pytest.approx(float(loss(key, ref[:6], targets[:, :6])))
    assert float(loss(key, ref, targets, ignored)) != pytest.approx(float(loss(key, ref, targets)), rel=1e-3)
    none = torch.zeros_like(targets)
    assert torch.equal(loss(key, ref, targets, none), loss(key, ref, targets))


def test_a_row_whose_negatives_are_all_ignored_has_a_finite_gradient() -> None:
    key = _random(2, 8).requires_grad_()
    targets = torch.tensor([[True, False, False], [False, True, False]])
    for loss in (released_contrast, paper_contrast, margin_loss):
        (gradient,) = torch.autograd.grad(loss(key, _random(3, 8, seed=1), targets, ~targets), key)
        assert bool(gradient.isfinite().all())


def _view(ids: list[int], seed: int, *groups: str, boxes: Tensor = BOXES) -> ViewSamples:
    boxes = boxes[: len(ids)]
    return ViewSamples(
        boxes=boxes,
        ids=torch.tensor(ids, dtype=torch.int64),
        truths=torch.arange(len(ids)),
        samples=boxes,
        embeddings=_random(len(ids), 8, seed=seed),
        groups=groups,
    )


def test_negatives_of_the_batch_leave_out_the_same_videos() -> None:
    rows = [_view([1, 2], 0, "5.mp4"), _view([1], 1, "6.mp4"), _view([1, 2, 3], 2, "5.mp4", "7.mp4")]
    columns = [_view([2, 1, 9], 3, "5.mp4"), _view([1, 4], 4, "6.mp4"), _view([3], 5, "5.mp4", "7.mp4")]
    (whole,) = pair_views(rows, columns, "batch", 1.0)
    assert whole.rows.shape == (6, 8) and whole.columns.shape == (6, 8)
    wanted = torch.zeros(6, 6, dtype=torch.bool)
    # Equal ids of different images are different objects.
    wanted[0, 1] = wanted[1, 0] = wanted[2, 3] = wanted[5, 5] = True
    assert torch.equal(whole.targets, wanted)
    unknown = torch.zeros(6, 6, dtype=torch.bool)
    unknown[0:2, 5] = unknown[3:6, 0:3] = True  # the first and the last image share video 5
    assert whole.ignored is not None and torch.equal(whole.ignored, unknown)
    alone = pair_views(rows, columns, "pair", 1.0)
    assert [tuple(each.targets.shape) for each in alone] == [(2, 3), (1, 2), (3, 1)]
    assert all(each.ignored is None for each in alone)


def test_boxes_that_overlap_are_no_negatives() -> None:
    # In the view of the columns the objects stand in another order, and the first is missing from the rows.
    row, column = _view([3, 1], 0), _view([1, 2, 3], 1)
    (found,) = pair_views([row], [column], "pair", 0.3)
    assert found.targets.tolist() == [[False, False, True], [True, False, False]]
    assert found.ignored is not None
    assert found.ignored.tolist() == [[False, False, False], [False, True, False]]
    (strict,) = pair_views([row], [column], "pair", 0.7)
    assert strict.ignored is not None and not strict.ignored.any()
    # An object that the other view does not show overlaps nothing there.
    (absent,) = pair_views([_view([7], 0)], [column], "pair", 0.3)
    assert absent.ignored is not None and not absent.ignored.any()


def test_views_without_objects_can_be_compared() -> None:
    for negatives in ("pair", "batch"):
        found = pair_views([_view([], 0), _view([1], 1)], [_view([1], 2), _view([], 3)], negatives, 0.3)
        values = [released_contrast(each.rows, each.columns, each.targets, each.ignored) for each in found]
        assert [float(value) for value in values] == [0.0] * len(values)


def test_telemetry_does_not_count_ignored_pairs() -> None:
    key, ref = _random(3, 8), _random(5, 8, seed=1)
    targets = torch.eye(3, 5, dtype=torch.bool)
    ignored = torch.zeros_like(targets)
    ignored[:, 4] = True
    with_ = pair_telemetry([ContrastPairs(rows=key, columns=ref, targets=targets, ignored=ignored)])
    without = pair_telemetry([ContrastPairs(rows=key, columns=ref[:4], targets=targets[:, :4])])
    assert all(float(with_[name]) == pytest.approx(float(without[name])) for name in without)


@pytest.fixture(scope="module")
def model() -> Masa:
    torch.manual_seed(0)
    variant = replace(VARIANTS["masa_lite0"], channels=32, head_channels=16, embed_channels=8, track_head="convs")
    return Masa(variant).train()


@pytest.fixture(scope="module")
def bands() -> Masa:
    torch.manual_seed(0)
    return Masa(replace(VARIANTS["masa_lite0"], channels=32, head_channels=16)).train()


def _step(model: Masa, *, swapped: bool = False, **changes: object) -> dict[str, Tensor]:
    key = torch.rand(2, 3, 96, 128, generator=_seeded(9)) * 255
    mirrored = BOXES[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([128, 0, 128, 0])
    ids = torch.tensor([1, 2, 3])
    sides = [
        [Targets(boxes=boxes, ids=ids, groups=(group,)) for group in ("a.jpg", "b.jpg")] for boxes in (BOXES, mirrored)
    ]
    images = [key, key.flip(-1)]
    if swapped:
        images, sides = images[::-1], sides[::-1]
    settings = LossSettings(**{"detection": False, **changes})  # type: ignore[arg-type]
    return masa_losses(model, *images, *sides, _seeded(), settings=settings)


@pytest.mark.parametrize("name", ["model", "bands"])
def test_without_detection_only_the_objects_are_compared(name: str, request: pytest.FixtureRequest) -> None:
    model: Masa = request.getfixturevalue(name)
    model.zero_grad()
    losses = _step(model)
    assert [key for key, each in losses.items() if each.requires_grad] == ["track", "track_aux", "total"]
    assert float(losses["positives"]) == 3
    losses["total"].backward()
    reached = {key.split(".")[0] for key, each in model.named_parameters() if each.grad is not None}
    assert reached == {"backbone", "track_head"} | ({"masa_adapter"} if name == "model" else set())


def test_more_negatives_make_it_harder_and_nested_ones_are_left_out(bands: Masa) -> None:
    with torch.no_grad():
        pair, batch = _step(bands), _step(bands, negatives="batch")
        apart = _step(bands, ignore_iou=0.3)
    assert float(batch["track"]) > float(pair["track"]) > float(apart["track"])
    assert float(batch["positives"]) == 3, "of an image, however many are compared at once"


def test_both_directions_are_the_mean_of_each(bands: Masa) -> None:
    with torch.no_grad():
        both = _step(bands, symmetric=True, negatives="batch", ignore_iou=0.3)
        there = _step(bands, negatives="batch", ignore_iou=0.3)
        back = _step(bands, swapped=True, negatives="batch", ignore_iou=0.3)
    assert float(there["track"]) != float(back["track"])
    for name in ("track", "track_aux"):
        assert float(both[name]) == pytest.approx((float(there[name]) + float(back[name])) / 2, rel=1e-4)
    assert float(both["positives"]) == float(there["positives"])


def test_no_weight_leaves_the_margin_loss_out(bands: Masa) -> None:
    with torch.no_grad():
        losses = _step(bands, auxiliary_weight=0.0)
    assert float(losses["track_aux"]) == 0 and float(losses["total"]) == float(losses["track"])


@pytest.mark.parametrize(("changes", "said"), [({"negatives": "all"}, "pair, batch"), ({"ignore_iou": 2}, "0 and 1")])
def test_unknown_options_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LossSettings(**changes)  # type: ignore[arg-type]
