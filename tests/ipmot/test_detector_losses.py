"""Costs, assignments and the detection losses (Eq. 8): by hand, by brute force, and where there is nothing to match."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou

from trackmill.models.ipmot.losses import focal_loss, giou_loss, l1_loss, set_loss
from trackmill.models.ipmot.losses.criterion import detector_losses
from trackmill.models.ipmot.matching import costs, match, match_layers
from trackmill.models.ipmot.overlaps import as_corners, generalised_iou


def drawn(queries: int, objects: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(queries, classes, generator=generator) * 2
    boxes, targets = (torch.rand(count, 4, generator=generator) * 0.4 + 0.1 for count in (queries, objects))
    return logits, boxes, torch.randint(0, classes, (objects,), generator=generator), targets


def test_costs_are_two_focal_five_l1_and_two_giou() -> None:
    logits, boxes, labels, targets = drawn(4, 3)
    found = costs(logits, boxes, labels, targets)
    overlaps = generalized_box_iou(as_corners(boxes), as_corners(targets))
    for query, target in itertools.product(range(4), range(3)):
        score = float(logits[query, labels[target]].sigmoid())
        focal = 0.25 * (1 - score) ** 2 * -math.log(score) - 0.75 * score**2 * -math.log(1 - score)
        apart = float((boxes[query] - targets[target]).abs().sum())
        expected = 2 * focal + 5 * apart - 2 * float(overlaps[query, target])
        assert float(found[query, target]) == pytest.approx(expected, abs=1e-5)
    other = costs(logits, boxes, labels, targets, weights=(0.0, 1.0, 0.0))
    torch.testing.assert_close(other, torch.cdist(boxes, targets, p=1))


@pytest.mark.parametrize(("queries", "objects"), [(5, 3), (3, 3), (2, 4)])
def test_the_assignment_is_the_cheapest_of_all(queries: int, objects: int) -> None:
    """Also with more objects than queries: the most expensive ones are left over."""
    given = drawn(queries, objects, seed=queries)
    matrix = costs(*given)
    query, target = match(*given)
    count = min(queries, objects)
    assert len(query) == len(set(query.tolist())) == len(set(target.tolist())) == count
    assert query.tolist() == sorted(query.tolist())
    cheapest = min(
        sum(float(matrix[q, t]) for q, t in zip(rows, columns))
        for rows in itertools.combinations(range(queries), count)
        for columns in itertools.permutations(range(objects), count)
    )
    assert float(matrix[query, target].sum()) == pytest.approx(cheapest, abs=1e-5)


def test_layers_are_matched_each_for_itself() -> None:
    logits, boxes, labels, targets = drawn(6, 2)
    layers = match_layers(torch.stack([logits, logits.flip(0)]), torch.stack([boxes, boxes.flip(0)]), labels, targets)
    for (query, target), flip in zip(layers, (False, True), strict=True):
        own = match(logits.flip(0) if flip else logits, boxes.flip(0) if flip else boxes, labels, targets)
        assert [query.tolist(), target.tolist()] == [each.tolist() for each in own]
    assert sorted((5 - layers[1][0]).tolist()) == layers[0][0].tolist()


def test_a_picture_without_objects_matches_nothing() -> None:
    logits, boxes, labels, targets = drawn(4, 0)
    query, target = match(logits, boxes, labels, targets)
    assert query.dtype == target.dtype == torch.int64 and len(query) == len(target) == 0


@pytest.mark.parametrize("which", ["logits", "boxes", "targets"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_told(which: str, value: float) -> None:
    logits, boxes, labels, targets = drawn(4, 2)
    if which == "logits" and value == math.inf:
        value = math.nan  # an infinite logit is a score of 1
    {"logits": logits, "boxes": boxes, "targets": targets}[which][1] = value
    with pytest.raises(ValueError, match=r"queries cannot be matched: .* NaN or infinity"):
        match(logits, boxes, labels, targets)


def test_the_focal_loss_by_hand() -> None:
    logits, targets = torch.tensor([2.0, -1.0]), torch.tensor([1, 0])
    sure, unsure = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    parts = [0.25 * (1 - sure) ** 2 * -math.log(sure), 0.75 * unsure**2 * -math.log(1 - unsure)]
    assert float(focal_loss(logits, targets)) == pytest.approx(sum(parts))
    assert float(focal_loss(logits, targets, torch.tensor([0.0, 3.0]))) == pytest.approx(3 * parts[1])


def test_the_box_losses_by_hand() -> None:
    """Two unit squares of which each covers half of the other, and two far apart."""
    boxes = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]])
    targets = torch.tensor([[0.3, 0.2, 0.2, 0.2], [0.4, 0.1, 0.1, 0.1]])
    assert float(l1_loss(boxes, targets)) == pytest.approx(0.1 + 0.3)
    assert float(giou_loss(boxes, targets)) == pytest.approx((1 - 1 / 3) + (1 + 0.5))
    corners = generalized_box_iou(as_corners(boxes), as_corners(targets))
    torch.testing.assert_close(generalised_iou(boxes[:, None], targets), corners)
    assert float(set_loss(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0))) == 2 + 10 + 6


def test_boxes_of_no_size_have_finite_losses_and_gradients() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0]], requires_grad=True)
    loss = giou_loss(boxes, torch.tensor([[0.5, 0.5, 0.0, 0.0]]))
    loss.backward()
    assert bool(loss.isfinite()) and boxes.grad is not None and bool(boxes.grad.isfinite().all())


def test_the_loss_of_a_batch_is_over_its_objects() -> None:
    """Two pictures, one of them empty; of three classes and two layers."""
    logits, boxes, labels, targets = drawn(5, 2)
    layer = {"pred_logits": logits.expand(2, -1, -1), "pred_boxes": boxes.expand(2, -1, -1)}
    wanted = [{"boxes": targets, "labels": labels}, {"boxes": targets[:0], "labels": labels[:0]}]
    found = detector_losses({**layer, "aux": [layer]}, wanted, giou_epsilon=0.0)
    query, target = match(logits, boxes, labels, targets)
    positives = torch.zeros(2, 5, 3)
    positives[0, query, labels[target]] = 1
    expected = focal_loss(layer["pred_logits"], positives) / 2
    torch.testing.assert_close(found.labels, expected.expand(2))
    torch.testing.assert_close(found.l1[0], l1_loss(boxes[query], targets[target]) / 2)
    torch.testing.assert_close(found.total, 2 * (2 * found.labels[0] + 5 * found.l1[0] + 2 * found.giou[0]))
    assert [[len(each[0]) for each in pictures] for pictures in found.matches] == [[2, 0], [2, 0]]
    nothing = detector_losses({**layer, "aux": []}, [wanted[1], wanted[1]])
    assert float(nothing.l1.sum()) == float(nothing.giou.sum()) == 0 and float(nothing.labels.sum()) > 0
    with pytest.raises(ValueError, match="targets of 1 pictures for 2 pictures"):
        detector_losses({**layer, "aux": []}, wanted[:1])
